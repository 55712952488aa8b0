"""Which sample comes when: permutations, groups, balance, samplers and ranks."""
