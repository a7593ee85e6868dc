package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

// component is a child process.
type component struct {
	process *os.Process
	// stopping is set before the component is killed on purpose.
	stopping atomic.Bool
	// gone is closed when the process has ended.
	gone chan struct{}
}

// startComponent starts a program that ends with this process, even if this process is killed. Its output goes to
// DIR/log. If the program ends by itself, fail is called with an error that names it.
func startComponent(o options, fail context.CancelCauseFunc, name string, arguments ...string) (*component, error) {
	log, err := os.Create(logFile(o, name))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(filepath.Join(o.programs, name), arguments...)
	// The path of a socket may have at most 107 bytes, so the arguments name files relative to DIR.
	command.Dir = o.dir
	// A fifth of the processor time for half as much memory again. Tests start many control planes, for a short time each.
	command.Env = append(os.Environ(), "GOGC=400")
	command.Stdout, command.Stderr = log, log
	// In a process group of its own, a component does not get the SIGINT of a terminal, and so is not taken for dead.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	c := &component{process: command.Process, gone: make(chan struct{})}
	go func() {
		command.Wait()
		close(c.gone)
		if !c.stopping.Load() {
			fail(fmt.Errorf("%s ended (%s); the last lines of its log:\n%s",
				name, command.ProcessState, lastLines(logFile(o, name), 20)))
		}
	}()
	return c, nil
}

// kill does not ask for an orderly end, because nothing in a control plane for tests is worth one.
func (c *component) kill() {
	c.stopping.Store(true)
	c.process.Kill()
	<-c.gone
}

func logFile(o options, name string) string {
	return filepath.Join(o.dir, "log", name+".log")
}

func lastLines(file string, count int) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
