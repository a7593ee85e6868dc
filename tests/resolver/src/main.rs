//! Prints the addresses of a name, or the error, as the webhook sees them: the standard library asks the C library, and
//! so do reqwest and kube.

use std::net::ToSocketAddrs;

fn main() {
    for name in std::env::args().skip(1) {
        match (name.as_str(), 443).to_socket_addrs() {
            Ok(addresses) => addresses.for_each(|address| println!("{}", address.ip())),
            Err(error) => println!("{error}"),
        }
    }
}
