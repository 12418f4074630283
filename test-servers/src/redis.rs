//! Redis: one node, with Sentinels, or a Cluster.
