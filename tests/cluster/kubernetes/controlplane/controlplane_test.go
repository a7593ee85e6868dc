package controlplane

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// programs is the folder that tests/cluster/build.sh printed: the tests are those of the built programs.
var programs string

func TestMain(m *testing.M) {
	build := exec.Command("../../build.sh")
	build.Stderr = os.Stderr
	folder, err := build.Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests/cluster/build.sh:", err)
		os.Exit(1)
	}
	programs = strings.TrimSpace(string(folder))
	os.Exit(m.Run())
}

func TestThreeRunAtOnceAndEachEndsWithItsStdin(t *testing.T) {
	var planes []*plane
	var pipes []*os.File
	for range 3 {
		// As a shell does, each one is passed the pipes that are the stdin of those before.
		p := startPlane(t, pipes...)
		planes, pipes = append(planes, p), append(pipes, p.stdin)
	}
	for number, p := range planes {
		p.awaitReady()
		p.createConfigMap(fmt.Sprintf("only-%d", number))
		info, err := os.Stat(filepath.Join(p.dir, "kubeconfig"))
		p.check(err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("the kubeconfig has the mode %v", info.Mode())
		}
	}
	found, err := planes[1].client().CoreV1().ConfigMaps("default").List(t.Context(), meta.ListOptions{})
	planes[1].check(err)
	for _, item := range found.Items {
		if item.Name != "only-1" && item.Name != "kube-root-ca.crt" {
			t.Errorf("the second control plane has the ConfigMap %s", item.Name)
		}
	}
	for _, p := range planes {
		p.stdin.Close()
		p.ends(0)
		if left := p.content(); !slices.Equal(left, []string{"log"}) {
			t.Errorf("a control plane that has ended leaves %v", left)
		}
	}
}

func TestTheAPIServerStopsAndStartsOnOrderOnAPortThatStaysReserved(t *testing.T) {
	p := startPlane(t)
	p.awaitReady()
	p.createConfigMap("kept")
	fmt.Fprintln(p.stdin, "stop kube-apiserver")
	p.await("the API server stops", func() bool { return p.getConfigMap("kept") != nil })
	if listener, err := net.Listen("tcp", p.address()); err == nil {
		listener.Close()
		t.Error("another process can take the port while the API server is stopped")
	}
	// However close together, none is lost.
	fmt.Fprint(p.stdin, "start kube-apiserver\nstop kube-apiserver\nstart kube-apiserver\n")
	p.await("the API server has what it had", func() bool { return p.getConfigMap("kept") == nil })
	fmt.Fprintln(p.stdin, "stop etcd")
	p.ends(1)
	p.says(`"stop etcd" on stdin is none of: stop kube-apiserver, start kube-apiserver`)
}

func TestControllersAndTheTokenIssuerWorkWithoutANode(t *testing.T) {
	p := startPlane(t)
	p.awaitReady()
	api := p.client().CoreV1()
	pod := &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "pending"}}
	pod.Spec.Containers = []core.Container{{Name: "main", Image: "example.com/none"}}
	_, err := api.Pods("default").Create(t.Context(), pod, meta.CreateOptions{})
	p.check(err)
	request := &authentication.TokenRequest{}
	request.Spec.Audiences = []string{"api://AzureADTokenExchange"}
	token, err := api.ServiceAccounts("default").CreateToken(t.Context(), "default", request, meta.CreateOptions{})
	p.check(err)
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token.Status.Token, ".")[1])
	p.check(err)
	if !bytes.Contains(claims, []byte(`"iss":"https://kubernetes.default.svc.cluster.local"`)) {
		t.Errorf("the claims of a token are %s", claims)
	}
	owner := p.createConfigMap("owner")
	p.createConfigMap("owned", meta.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID})
	p.check(api.ConfigMaps("default").Delete(t.Context(), "owner", meta.DeleteOptions{}))
	p.await("an object without its owner is gone", func() bool { return errors.IsNotFound(p.getConfigMap("owned")) })
}

func TestItEndsWhenItsCallerIsKilled(t *testing.T) {
	dir := t.TempDir()
	// The caller is the shell that becomes sleep, and holds the other end of the pipe.
	caller := exec.Command("bash", "-c", `exec 3> >(exec "$@") && exec sleep 1000`, "bash")
	caller.Args = append(caller.Args, command(dir).Args...)
	p := start(t, dir, caller)
	p.awaitReady()
	p.check(p.process.Kill())
	p.await("the control plane has ended", func() bool { return len(p.components()) == 0 && p.stdoutIsClosed() })
}

func TestNoComponentOutlivesAKillOfTheControlPlane(t *testing.T) {
	p := startPlane(t)
	p.awaitReady()
	if found := len(p.components()); found != 4 {
		t.Errorf("%d components are found", found)
	}
	p.check(p.process.Kill())
	p.await("the components have ended", func() bool { return len(p.components()) == 0 })
}

func TestItEndsOnSIGTERM(t *testing.T) {
	p := startPlane(t)
	p.awaitReady()
	p.check(p.process.Signal(syscall.SIGTERM))
	p.ends(0)
}

func TestAComponentThatDiesIsNamedAndEndsTheRest(t *testing.T) {
	p := startPlane(t)
	p.awaitReady()
	scheduler, found := p.components()["kube-scheduler"]
	if !found {
		t.Fatal("no kube-scheduler is found")
	}
	p.check(syscall.Kill(scheduler, syscall.SIGKILL))
	p.ends(1)
	p.says("kube-scheduler ended (signal: killed)")
}

func TestAComponentThatCannotStartIsNamedWithItsLastLogLines(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"control-plane", "kube-apiserver"} {
		if err := os.Symlink(filepath.Join(programs, name), filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	script := "#!/bin/sh\necho disk on fire\nexit 3\n"
	if err := os.WriteFile(filepath.Join(folder, "etcd"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := start(t, dir, exec.Command(filepath.Join(folder, "control-plane"), "--dir", dir))
	p.ends(1)
	p.says("etcd ended (exit status 3); the last lines of its log:\ndisk on fire\n")
}

func TestAPortInUseIsRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := strings.TrimPrefix(listener.Addr().String(), "127.0.0.1:")
	dir := t.TempDir()
	p := start(t, dir, command(dir, "--port", port))
	p.ends(1)
	p.says("cannot have port " + port + " of 127.0.0.1: address already in use")
}

func TestAFolderWithContentIsRefusedAndLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, dir, command(dir))
	p.ends(1)
	p.says(dir + " is not empty")
	if left := p.content(); !slices.Equal(left, []string{"precious"}) {
		t.Errorf("the folder now has %v", left)
	}
}
