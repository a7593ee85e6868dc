package controlplane

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// reservePort returns the port, or a free one for 0, and keeps it from all other processes until this process ends:
// also before the API server listens, and while the API server is stopped. The socket is bound and never listens, so
// the API server, which shares the port by --permit-port-sharing, gets all connections.
func reservePort(address string, port int) (int, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.Is4() {
		return 0, fmt.Errorf("--address is %q, but must be an IPv4 address", address)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot open a socket: %w", err)
	}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, fmt.Errorf("cannot share a port: %w", err)
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: ip.As4(), Port: port}); err != nil {
		return 0, fmt.Errorf("cannot have port %d of %s: %w", port, address, err)
	}
	bound, err := unix.Getsockname(socket)
	if err != nil {
		return 0, fmt.Errorf("cannot see the port of a socket: %w", err)
	}
	return bound.(*unix.SockaddrInet4).Port, nil
}
