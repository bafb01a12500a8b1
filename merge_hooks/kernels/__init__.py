"""Our own arithmetic of mergekit's common methods: its bytes, faster. `choose` picks the way."""
