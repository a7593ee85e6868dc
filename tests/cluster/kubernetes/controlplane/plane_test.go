package controlplane

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long a test waits for what will come, before it fails.
const patience = 2 * time.Minute

// plane is a control plane under test, started as its users start it.
type plane struct {
	*testing.T
	dir     string
	process *os.Process
	stdin   *os.File
	stdout  *os.File
	stderr  *os.File
	// status gets the exit status.
	status chan int
}

// command is the command line of a control plane.
func command(dir string, arguments ...string) *exec.Cmd {
	return exec.Command(filepath.Join(programs, "control-plane"), append([]string{"--dir", dir}, arguments...)...)
}

func startPlane(t *testing.T, inherited ...*os.File) *plane {
	dir := t.TempDir()
	return start(t, dir, command(dir), inherited...)
}

// start runs a command with a pipe as its stdin, and with more files as a careless caller leaves them open.
func start(t *testing.T, dir string, command *exec.Cmd, inherited ...*os.File) *plane {
	p := &plane{T: t, dir: dir, status: make(chan int, 1)}
	stdin, stdout := p.pipe(), p.pipe()
	p.stdin, p.stdout = stdin[1], stdout[0]
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	p.check(err)
	p.stderr = stderr
	command.Stdin, command.Stdout, command.Stderr, command.ExtraFiles = stdin[0], stdout[1], stderr, inherited
	p.check(command.Start())
	stdin[0].Close()
	stdout[1].Close()
	p.process = command.Process
	go func() {
		command.Wait()
		p.status <- command.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		p.stdin.Close()
		p.await("the control plane has ended", func() bool { return len(p.components()) == 0 })
		p.process.Kill()
	})
	return p
}

// pipe has the end to be read first.
func (p *plane) pipe() [2]*os.File {
	p.Helper()
	reader, writer, err := os.Pipe()
	p.check(err)
	return [2]*os.File{reader, writer}
}

func (p *plane) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatalf("%v\nIts stderr:\n%s", err, p.errors())
	}
}

func (p *plane) errors() string {
	content, _ := os.ReadFile(p.stderr.Name())
	return string(content)
}

func (p *plane) await(what string, condition func() bool) {
	p.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Fatalf("not within %v: %s\nIts stderr:\n%s", patience, what, p.errors())
		}
	}
}

func (p *plane) awaitReady() {
	p.Helper()
	p.stdout.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(p.stdout).ReadString('\n')
	p.check(err)
	if want := "ready kubeconfig=" + p.kubeconfig() + "\n"; line != want {
		p.Fatalf("stdout has %q, not %q", line, want)
	}
}

// stdoutIsClosed is whether no process can write to it any more.
func (p *plane) stdoutIsClosed() bool {
	p.stdout.SetReadDeadline(time.Now().Add(time.Second))
	count, err := p.stdout.Read(make([]byte, 1))
	return count == 0 && err != nil && !os.IsTimeout(err)
}

// ends awaits the exit of the control plane with this status, and that nothing it started is left.
func (p *plane) ends(status int) {
	p.Helper()
	select {
	case got := <-p.status:
		if got != status {
			p.Errorf("the exit status is %d, not %d. Its stderr:\n%s", got, status, p.errors())
		}
	case <-time.After(patience):
		p.Fatalf("it has not ended within %v. Its stderr:\n%s", patience, p.errors())
	}
	if left := p.components(); len(left) > 0 {
		p.Errorf("it left the processes %v", left)
	}
}

func (p *plane) says(part string) {
	p.Helper()
	if said := p.errors(); !strings.Contains(said, part) {
		p.Errorf("its stderr does not contain %q:\n%s", part, said)
	}
}

// components are the process ids by program: each component works in DIR.
func (p *plane) components() map[string]int {
	found := map[string]int{}
	folders, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range folders {
		folder, err := os.Readlink(link)
		if err != nil || folder != p.dir {
			continue
		}
		// A name in comm would be cut after 15 bytes.
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "cmdline"))
		program, _, _ := strings.Cut(string(line), "\x00")
		process, _ := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		found[filepath.Base(program)] = process
	}
	return found
}

// content is the names in DIR.
func (p *plane) content() []string {
	p.Helper()
	entries, err := os.ReadDir(p.dir)
	p.check(err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func (p *plane) kubeconfig() string {
	return filepath.Join(p.dir, "kubeconfig")
}

func (p *plane) config() *rest.Config {
	p.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", p.kubeconfig())
	p.check(err)
	return config
}

// address is the host and port of the API server.
func (p *plane) address() string {
	p.Helper()
	return strings.TrimPrefix(p.config().Host, "https://")
}

func (p *plane) client() kubernetes.Interface {
	p.Helper()
	client, err := kubernetes.NewForConfig(p.config())
	p.check(err)
	return client
}

func (p *plane) createConfigMap(name string, owners ...meta.OwnerReference) *core.ConfigMap {
	p.Helper()
	object := &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: name, OwnerReferences: owners}}
	created, err := p.client().CoreV1().ConfigMaps("default").Create(p.Context(), object, meta.CreateOptions{})
	p.check(err)
	return created
}

func (p *plane) getConfigMap(name string) error {
	_, err := p.client().CoreV1().ConfigMaps("default").Get(p.Context(), name, meta.GetOptions{})
	return err
}
