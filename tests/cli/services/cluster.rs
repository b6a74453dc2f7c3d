//! A cluster of three masters with a replica each. In: how long a silent master is waited for. Out: nodes that can
//! be killed and stopped, and the URL of the cluster as a place.

use std::time::Duration;

use super::{Server, Services, until};

/// Six nodes. They end with the value.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Server>,
}

impl Cluster {
    /// Starts a cluster that replaces a master after a silence of `patience`.
    pub(super) fn start(services: &Services, patience: Duration) -> Self {
        let patience = patience.as_millis().to_string();
        let flags = [
            ["--cluster-enabled", "yes"],
            ["--cluster-node-timeout", &patience],
            ["--cluster-require-full-coverage", "no"],
            ["--cluster-allow-reads-when-down", "yes"],
            ["--repl-diskless-sync-delay", "0"],
            ["--repl-backlog-size", "256mb"],
            ["--client-output-buffer-limit", "replica 4gb 4gb 0"],
        ];
        let nodes = (0..6).map(|_| services.redis_with(flags.as_flattened())).collect();
        let cluster = Self { nodes };
        let addresses: Vec<_> = cluster.nodes.iter().map(address).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let said = cluster.nodes[0].cli(&create);
        assert!(said.contains("[OK] All 16384 slots covered"), "{said}");
        cluster.wait_until_whole();
        assert_eq!(cluster.pairs().len(), 3);
        cluster
    }

    /// Waits until every node finds the cluster whole, and every replica follows its master.
    pub(super) fn wait_until_whole(&self) {
        for node in &self.nodes {
            until("a whole cluster", || {
                node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            });
            until("a replica's link to its master", || {
                node.info("role") == "master" || node.info("master_link_status") == "up"
            });
        }
    }

    /// Returns the URL of the cluster, which names two of its nodes.
    pub(super) fn url(&self, options: &str) -> String {
        format!("redis://{},{}?{options}", address(&self.nodes[1]), address(&self.nodes[4]))
    }

    /// Lists masters that have a replica, each with its replica, by their numbers.
    pub(super) fn pairs(&self) -> Vec<(usize, usize)> {
        let number = |port: &str| self.nodes.iter().position(|node| node.port.to_string() == port);
        let of = |(n, node): (usize, &Server)| {
            let replica = node.info("role") == "slave";
            let master = replica.then(|| number(&node.info("master_port")))?;
            Some((master.expect("a replica's master"), n))
        };
        self.nodes.iter().enumerate().filter_map(of).collect()
    }
}

fn address(node: &Server) -> String {
    format!("127.0.0.1:{}", node.port)
}
