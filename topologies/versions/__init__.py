"""Versions of a topology beside each other: one is served while another rebuilds, is compared, and takes over.

A version is a group of its own. `v2` of the topology `order-analytics-group` runs as `order-analytics-group.v2`: its
changelogs, progress and state carry that name, and the topics that it derives (finals, decisions, publications, what it
forwards) have `.v2` after theirs. What it reads from others is what the first version reads. So nothing that one
version does is seen by another, and any of them can be stopped, started or dropped alone (`naming`).

What there is, and which is served, stands in one small compacted topic of the installation (`register`): operators
write there, view servers follow it and say there how far they are. A view server moves by opening the wanted version
beside the one that it serves, and swaps when that has everything that the old one has (topologies.views.hosting), so
that answers never go back in time. Rebuilding gives way to the served version (`giving_way`, `building`); whether two
versions say the same is asked of their changelogs (`comparing`).
"""
