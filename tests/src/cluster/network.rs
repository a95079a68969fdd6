//! Links that a test cuts and throttles: a network namespace for each role.

use std::process::{Command, Stdio};

use crate::privilege::Missing;

/// Network namespaces: one for a scheduler and its clients, and one for each executor, with its own link to
/// the first.
#[derive(Debug)]
pub struct Network {
    prefix: String,
}

/// Runs `ip`, and returns whether it succeeded.
fn ip(args: &str) -> bool {
    Command::new("ip")
        .args(args.split(' '))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Network {
    /// Creates the namespaces. Needs the privilege to do so.
    ///
    /// # Errors
    /// If the privilege is missing.
    pub fn new() -> Result<Self, Missing> {
        static NETWORKS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NETWORKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let network = Self { prefix: format!("spool-{}-{number}", std::process::id()) };
        let scheduler = network.scheduler();
        let forward = format!("netns exec {scheduler} sysctl -q -w net.ipv4.ip_forward=1");
        if ip(&format!("netns add {scheduler}"))
            && ip(&format!("-n {scheduler} link set lo up"))
            && ip(&forward)
        {
            return Ok(network);
        }
        Err(Missing("failed to create a network namespace".to_owned()))
    }

    pub(super) fn scheduler(&self) -> String {
        format!("{}-s", self.prefix)
    }

    pub(super) fn executor(&self, number: usize) -> String {
        format!("{}-e{number}", self.prefix)
    }

    /// Creates the namespace of an executor, and returns the scheduler's address on its link.
    pub(super) fn add_executor(&self, number: usize) -> String {
        let (scheduler, executor) = (self.scheduler(), self.executor(number));
        for args in [
            format!("netns add {executor}"),
            format!("-n {executor} link set lo up"),
            format!("link add up0 netns {executor} type veth peer name e{number} netns {scheduler}"),
            format!("-n {scheduler} addr add 10.77.{number}.1/30 dev e{number}"),
            format!("-n {scheduler} link set e{number} up"),
            format!("-n {executor} addr add 10.77.{number}.2/30 dev up0"),
            format!("-n {executor} link set up0 up"),
            format!("-n {executor} route add default via 10.77.{number}.1"),
        ] {
            assert!(ip(&args), "ip {args}");
        }
        format!("10.77.{number}.1")
    }

    /// Cuts the link of an executor.
    ///
    /// # Panics
    /// If the link cannot be changed.
    pub fn disconnect(&self, number: usize) {
        assert!(ip(&format!("-n {} link set e{number} down", self.scheduler())));
    }

    /// Limits the bit rate of an executor's link, in both directions.
    ///
    /// # Panics
    /// If the link cannot be changed.
    pub fn throttle(&self, number: usize, bits_per_second: u32) {
        for (namespace, device) in
            [(self.scheduler(), format!("e{number}")), (self.executor(number), "up0".to_owned())]
        {
            let args = format!(
                "-n {namespace} qdisc add dev {device} root tbf rate {bits_per_second} burst 4kb latency 2s"
            );
            let output = Command::new("tc").args(args.split(' ')).output().unwrap();
            assert!(output.status.success(), "tc {args}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Restores the link of an executor.
    ///
    /// # Panics
    /// If the link cannot be changed.
    pub fn reconnect(&self, number: usize) {
        assert!(ip(&format!("-n {} link set e{number} up", self.scheduler())));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let listed = Command::new("ip")
            .args(["netns", "list"])
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        for name in String::from_utf8_lossy(&listed).lines().filter_map(|line| line.split(' ').next()) {
            if name.starts_with(&format!("{}-", self.prefix)) {
                ip(&format!("netns del {name}"));
            }
        }
    }
}
