// Command pause holds a Pod's namespaces open, as upstream's pause image does.
// With a HOST:PORT its exit code reports instead whether a TCP connection
// to it succeeds: the check that Service traffic flows from a Pod.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		reach(os.Args[1])
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}

// reach retries for a while: kube-proxy needs about a second after a change.
func reach(address string) {
	var err error
	for range 100 {
		var connection net.Conn
		if connection, err = net.DialTimeout("tcp", address, time.Second); err == nil {
			connection.Close()
			fmt.Println("reached", address)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Println(err)
	os.Exit(1)
}
