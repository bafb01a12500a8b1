"""Questions asked before a merge: do these models fit together, can they be swapped, is there room?"""
