package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

const (
	serviceRange   = "10.96.0.0/16"
	serviceAddress = "10.96.0.1"
	// etcd listens on sockets: they cannot collide as ports can, and are closed to the machine's other users.
	// The :0 is part of their names, because etcd before 3.6 does not accept a socket without a port.
	etcdSocket   = "etcd.sock:0"
	peerSocket   = "peer.sock:0"
	pollInterval = 20 * time.Millisecond
)

// controlPlane is the running components, by name.
type controlPlane struct {
	options
	fail       context.CancelCauseFunc
	components map[string]*component
}

// run returns nil when stdin ended or a signal came, and otherwise the reason why the control plane cannot go on.
func run(ctx context.Context, end context.CancelCauseFunc, o options, orders <-chan string) error {
	if err := prepare(o); err != nil {
		return err
	}
	p := &controlPlane{options: o, fail: end, components: map[string]*component{}}
	defer p.stop()
	err := p.up(ctx)
	if err == nil {
		fmt.Printf("ready kubeconfig=%s\n", filepath.Join(o.dir, "kubeconfig"))
		err = p.serve(ctx, orders)
	}
	if errors.Is(err, errStdinEnded) || errors.Is(err, errSignal) {
		fmt.Fprintf(os.Stderr, "control-plane: %v, stopping\n", err)
		return nil
	}
	return err
}

func prepare(o options) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(o.dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: name a folder of its own for each control plane", o.dir)
	}
	for _, name := range []string{"etcd", "log", "pki"} {
		if err := os.Mkdir(filepath.Join(o.dir, name), 0o700); err != nil {
			return err
		}
	}
	return os.Symlink(o.programs, filepath.Join(o.dir, "bin"))
}

// up returns when Pods can be created.
func (p *controlPlane) up(ctx context.Context) error {
	port, err := reservePort(p.address, p.port)
	if err != nil {
		return err
	}
	p.port = port
	if err := p.startEtcd(); err != nil {
		return err
	}
	credentials, err := newCredentials(p.dir, p.address)
	if err != nil {
		return err
	}
	server := "https://" + net.JoinHostPort(p.address, strconv.Itoa(p.port))
	if err := credentials.writeKubeconfigs(server); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(credentials.admin(server))
	if err != nil {
		return err
	}
	// An API server that comes before etcd waits a second until it tries again.
	err = until(ctx, func(context.Context) bool {
		_, err := os.Stat(filepath.Join(p.dir, etcdSocket))
		return err == nil
	})
	if err != nil {
		return err
	}
	if err := p.startAPIServer(); err != nil {
		return err
	}
	err = until(ctx, func(ctx context.Context) bool {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
	})
	if err != nil {
		return err
	}
	if err := p.startControllers(); err != nil {
		return err
	}
	// No Pod can be created in a namespace that the controller manager has not given its service account yet.
	return until(ctx, func(ctx context.Context) bool {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
}

// until returns nil as soon as the condition is met, and an error when the control plane is to end before that.
func until(ctx context.Context, condition func(context.Context) bool) error {
	err := wait.PollUntilContextCancel(ctx, pollInterval, true, func(ctx context.Context) (bool, error) {
		return condition(ctx), nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// serve does what lines of stdin say until the control plane is to end.
func (p *controlPlane) serve(ctx context.Context, orders <-chan string) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case order := <-orders:
			server, running := p.components["kube-apiserver"]
			switch {
			case order == "stop kube-apiserver" && running:
				server.kill()
				delete(p.components, "kube-apiserver")
			case order == "start kube-apiserver" && !running:
				if err := p.startAPIServer(); err != nil {
					return err
				}
			case order != "stop kube-apiserver" && order != "start kube-apiserver":
				return fmt.Errorf("%q on stdin is none of: stop kube-apiserver, start kube-apiserver", order)
			}
		}
	}
}

// stop leaves only DIR/log.
func (p *controlPlane) stop() {
	for _, component := range p.components {
		component.kill()
	}
	for _, name := range []string{"etcd", "pki", "kubeconfig", "kube-apiserver.pid", "bin", etcdSocket, peerSocket} {
		os.RemoveAll(filepath.Join(p.dir, name))
	}
}

func (p *controlPlane) start(name string, arguments ...string) error {
	component, err := startComponent(p.options, p.fail, name, arguments...)
	if err == nil {
		p.components[name] = component
	}
	return err
}

func (p *controlPlane) startEtcd() error {
	return p.start("etcd", "--data-dir=etcd/data", "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=unix://"+etcdSocket, "--advertise-client-urls=unix://"+etcdSocket,
		"--listen-peer-urls=unix://"+peerSocket, "--initial-advertise-peer-urls=unix://"+peerSocket,
		"--initial-cluster=default=unix://"+peerSocket)
}

func (p *controlPlane) startAPIServer() error {
	arguments := []string{
		"--bind-address=" + p.address,
		"--secure-port=" + strconv.Itoa(p.port),
		"--permit-port-sharing",
		"--etcd-servers=unix://" + etcdSocket,
		"--tls-cert-file=pki/server.crt",
		"--tls-private-key-file=pki/server.key",
		"--client-ca-file=pki/ca.crt",
		"--token-auth-file=pki/tokens.csv",
		"--authorization-mode=Node,RBAC",
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=pki/service-account.key",
		"--service-account-key-file=pki/service-account.key",
		"--service-cluster-ip-range=" + serviceRange,
		"--kubelet-client-certificate=pki/kubelet-client.crt",
		"--kubelet-client-key=pki/kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP",
	}
	// The endpoint of the Service 'kubernetes' must be an address that Pods can reach, which loopback is not.
	if net.ParseIP(p.address).IsLoopback() {
		arguments = append(arguments, "--endpoint-reconciler-type=none")
	} else {
		arguments = append(arguments, "--advertise-address="+p.address)
	}
	arguments = append(arguments, p.apiServerFlags...)
	if err := p.start("kube-apiserver", arguments...); err != nil {
		return err
	}
	// For tests that pause the process.
	pid := strconv.Itoa(p.components["kube-apiserver"].process.Pid)
	return os.WriteFile(filepath.Join(p.dir, "kube-apiserver.pid"), []byte(pid+"\n"), 0o600)
}

func (p *controlPlane) startControllers() error {
	err := p.start("kube-controller-manager",
		"--kubeconfig=pki/controller-manager.kubeconfig",
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
		"--service-account-private-key-file=pki/service-account.key",
		"--root-ca-file=pki/ca.crt",
		"--cluster-signing-cert-file=pki/ca.crt",
		"--cluster-signing-key-file=pki/ca.key")
	if err != nil {
		return err
	}
	return p.start("kube-scheduler", "--kubeconfig=pki/scheduler.kubeconfig", "--secure-port=0", "--leader-elect=false")
}
