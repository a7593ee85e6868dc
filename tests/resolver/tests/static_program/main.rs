//! The names that a statically linked program finds in an image without any other file: glibc asks a DNS server of this
//! test, in a network namespace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dns;

use std::{fs, path::Path, process::Command};
use tempfile::TempDir;
use testkit::programs::built_by;

/// The path of the program. Set in the process that runs in its own network namespace.
const PROGRAM: &str = "RESOLVER_TEST_PROGRAM";
/// As the kubelet writes it for a Pod with the DNS policy ClusterFirst.
const RESOLV_CONF: &str =
    "nameserver 127.0.0.1\nsearch app.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
/// As the kubelet writes it for a Pod with hostAliases.
const HOSTS: &str = "127.0.0.1 localhost\n192.0.2.9 alias.example\n";

/// A name, and what the program prints about it.
const CASES: [(&str, &str); 10] = [
    ("aaaa-without-records.example", "192.0.2.1"),
    // Some DNS servers answer a question for IPv6 addresses with an error although the name has IPv4 addresses.
    ("aaaa-is-nxdomain.example", "192.0.2.1"),
    ("aaaa-is-servfail.example", "192.0.2.1"),
    ("aaaa-is-refused.example", "192.0.2.1"),
    ("aaaa-is-notimp.example", "192.0.2.1"),
    // The reply is too long for UDP, so the question is repeated over TCP.
    ("truncated.example", "192.0.2.1"),
    ("service", "192.0.2.1"),
    ("alias.example", "192.0.2.9"),
    (
        "missing.example",
        "failed to lookup address information: Name or service not known",
    ),
    (
        "servfail.example",
        "failed to lookup address information: Temporary failure in name resolution",
    ),
];

#[test]
fn a_static_program_finds_each_name_without_any_file_of_the_c_library() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        return repeat_in_network_namespace();
    };
    dns::serve();
    // Has no nsswitch.conf, as the image.
    let image = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    fs::create_dir(image.path().join("etc")).unwrap();
    fs::write(image.path().join("etc/resolv.conf"), RESOLV_CONF).unwrap();
    fs::write(image.path().join("etc/hosts"), HOSTS).unwrap();
    fs::copy(program, image.path().join("resolver")).unwrap();
    let printed = CASES.map(|(name, _)| (name, print(image.path(), name)));
    let printed = printed.each_ref().map(|(name, lines)| (*name, lines.as_str()));
    assert_eq!(printed, CASES);
}

/// The first line that the program prints about a name.
fn print(image: &Path, name: &str) -> String {
    let output = Command::new("chroot")
        .arg(image)
        .args(["/resolver", name])
        .output();
    let output = output.expect("chroot can be started");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.lines().next().unwrap_or_default().to_owned()
}

/// Runs this test again in a process with its own network, whose port 53 is free.
fn repeat_in_network_namespace() {
    let repeated = Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "--",
            "sh",
            "-c",
            "ip link set lo up && exec \"$@\"",
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .arg("--nocapture")
        // Built here, because the namespace has no network.
        .env(PROGRAM, built_by("tests/resolver/build.sh"))
        .output()
        .expect("unshare can be started: install the package util-linux");
    assert!(
        repeated.status.success(),
        "the test failed in its network namespace, which needs root or unprivileged user namespaces, and the package iproute2: {}{}",
        String::from_utf8_lossy(&repeated.stdout),
        String::from_utf8_lossy(&repeated.stderr)
    );
}
