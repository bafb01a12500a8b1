"""Sweeps: many merges, one engine, nothing lost.

    iberian sweep sweep.yml

    spec      sweep.yml -> Sweep: what to measure, and the points (a recipe each) that its axes span
    plan      Sweep -> Plan: sources found, signatures, which points share an engine, in which order
    worker    one engine: swap, evaluate, hand every answer and every result to whoever listens
    pool      where workers live: this process, processes of this machine, a Ray cluster
    store     SQLite in the run folder: answers, results, documents, failures, claims
    driver    takes points from the plan, gives them to the pool, writes what comes back
    run       what a finished (or half finished) run folder holds, for reports

Only the worker knows lm_eval's evaluator, and only the driver writes to the store.
"""
