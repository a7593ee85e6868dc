// Package controlplane runs a Kubernetes control plane for tests: etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler as child processes, without a node and without root.
package controlplane

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const usage = `usage: control-plane --dir DIR [--address ADDRESS] [--port PORT]
       [--api-server-flag FLAG]...

Runs etcd, kube-apiserver, kube-controller-manager and kube-scheduler in the foreground, needing no root.
When Pods can be created, it prints one line to stdout: ready kubeconfig=DIR/kubeconfig
It ends when its stdin does, on SIGTERM or SIGINT, or when a component ends, and then leaves only DIR/log.
Lines on stdin: 'stop kube-apiserver' kills the API server, 'start kube-apiserver' starts it again on its port.

`

var (
	errStdinEnded = errors.New("stdin ended")
	errSignal     = errors.New("a signal came")
)

// Main is the program control-plane. It returns the exit status of the process.
func Main(arguments []string) int {
	// The kernel kills a child when the thread that started it ends, so all children are started on this thread.
	runtime.LockOSThread()
	options, err := parse(arguments)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = closeInherited()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		return 2
	}
	// The API server would send its calls of webhooks and kubelets through the caller's proxy.
	for _, name := range []string{"http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		os.Unsetenv(name)
	}
	syscall.Umask(0o077)
	ctx, end := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		end(errSignal)
	}()
	if err := run(ctx, end, options, readOrders(os.Stdin, end)); err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		return 1
	}
	return 0
}

type options struct {
	// dir is new or empty.
	dir string
	// programs is the folder that has each component by name.
	programs string
	// address is where the API server listens, and where a node and its Pods reach it unless it is a loopback address.
	address string
	port    int
	// apiServerFlags are more flags of the API server, which replace those of the same name.
	apiServerFlags []string
}

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("control-plane", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.dir, "dir", "", "the folder for kubeconfig, log/, bin/kubectl and state; must be new or empty")
	flags.StringVar(&o.address, "address", "127.0.0.1", "the IPv4 address of the API server")
	flags.IntVar(&o.port, "port", 0, "the port of the API server (default: a free one)")
	flags.Func("api-server-flag", "one more flag of the API server, such as --v=4; may be repeated", func(value string) error {
		o.apiServerFlags = append(o.apiServerFlags, value)
		return nil
	})
	if err := flags.Parse(arguments[1:]); err != nil {
		return o, err
	}
	if o.dir == "" || flags.NArg() != 0 {
		return o, errors.New("--dir is needed, and arguments that are not flags are not taken; see --help")
	}
	program, err := exec.LookPath(arguments[0])
	if err != nil {
		return o, err
	}
	if o.programs, err = filepath.Abs(filepath.Dir(program)); err != nil {
		return o, err
	}
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}

// closeInherited closes what a caller passed by accident. A shell that starts several control planes passes each one
// the pipe that is the stdin of those before, and they would not end while it is open. Go's own files have the flag
// close-on-exec, so a file without it is inherited.
func closeInherited() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		descriptor, err := strconv.Atoi(entry.Name())
		if err != nil || descriptor <= 2 {
			continue
		}
		// The descriptor by which the folder was read is closed by now.
		if flags, err := unix.FcntlInt(uintptr(descriptor), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			syscall.Close(descriptor)
		}
	}
	return nil
}

// readOrders returns the lines of stdin, and calls end when there are no more.
func readOrders(stdin io.Reader, end context.CancelCauseFunc) <-chan string {
	orders := make(chan string, 64)
	go func() {
		lines := bufio.NewScanner(stdin)
		for lines.Scan() {
			orders <- lines.Text()
		}
		end(errStdinEnded)
	}()
	return orders
}
