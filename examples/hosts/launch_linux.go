package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/coppice-go/coppice/actors/hosts"
)

// bridged are the first three numbers of the addresses of hosts that have a network of their own.
const bridged = "10.78.0"

// launch runs all hosts, each a program of its own with -host.
func launch() {
	if *chaos && os.Getuid() == 0 && *network != bridged {
		separate()
	}
	if *chaos {
		prepare()
		defer os.RemoveAll(*dir)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	f := fleet{}
	for _, name := range seats {
		f.start(name)
	}
	if *chaos {
		harmed := make(chan struct{})
		go func() { // ends with the program at the latest
			harm(f)
			close(harmed)
		}()
		select {
		case <-harmed:
		case <-end:
			log.Print("asked to end before all was tried")
		}
	} else {
		<-end
	}
	f.end()
}

// separate begins this program anew, in a network namespace that ends with it. If there is none to
// be had it returns.
func separate() {
	if err := exec.Command("unshare", "-n", "ip", "link", "add", "br0", "type", "bridge").Run(); err != nil {
		log.Printf("no network namespaces here: %v", err)
		return
	}
	unshare, err := exec.LookPath("unshare")
	must(err)
	self, err := os.Executable()
	must(err)
	args := slices.Concat([]string{"unshare", "-n", self}, os.Args[1:], []string{"-net", bridged})
	must(syscall.Exec(unshare, args, os.Environ()))
}

// prepare makes a new directory, certificates, and a bridge if the hosts are to be on one.
func prepare() {
	var err error
	*dir, err = os.MkdirTemp("", "shop")
	must(err)
	*certs = *dir
	file := func(name string) string { return filepath.Join(*certs, name) }
	must(hosts.WriteCA(file("shop.pem"), file("shop.key"), "shop"))
	for _, name := range seats {
		must(hosts.WriteCert(file("shop.pem"), file("shop.key"), file(name+".pem"), file(name+".key"), "shop", name))
	}
	if *network == bridged {
		run("ip", "link", "add", "br0", "type", "bridge")
		run("ip", "address", "add", bridged+".254/24", "dev", "br0")
		run("ip", "link", "set", "br0", "up")
	}
}

// fleet is the programs of the hosts.
type fleet map[string]*exec.Cmd

func (f fleet) start(name string) {
	self, err := os.Executable()
	must(err)
	args := []string{self, "-host", name, "-net", *network, "-dir", *dir, "-certs", *certs, "-lease", lease.String()}
	if *network == bridged { // it waits for its network
		script := `until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
			ip address add ` + address(name) + `/24 dev eth0 && ip link set eth0 up && ip link set lo up && exec "$0" "$@"`
		args = slices.Concat([]string{"unshare", "-n", "sh", "-c", script}, args)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if *chaos {
		cmd.Stdout = os.Stderr // what is printed is of the clients
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(cmd.Start())
	f[name] = cmd
	if *network == bridged {
		own, err := os.Readlink("/proc/self/ns/net")
		must(err)
		eventually("have a network for host "+name, func() bool {
			its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
			return err == nil && its != own
		})
		run("ip", "link", "add", "p"+name, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(cmd.Process.Pid))
		f.heal(name)
	}
}

// ask asks a host to end.
func (f fleet) ask(name string) { must(f[name].Process.Signal(syscall.SIGTERM)) }

// kill ends a host, whose processes do not outlive their master.
func (f fleet) kill(name string) { must(f[name].Process.Kill()) }

// restart starts a host that ends, when its network has gone with its processes.
func (f fleet) restart(name string) {
	_ = f[name].Wait() // its log says how it has ended
	if *network == bridged {
		eventually("be rid of host "+name, func() bool { return exec.Command("ip", "link", "show", "p"+name).Run() != nil })
	}
	f.start(name)
}

// isolate has nothing reach a host, and nothing leave it.
func (f fleet) isolate(name string) { run("ip", "link", "set", "p"+name, "nomaster") }

// heal ends that.
func (f fleet) heal(name string) { run("ip", "link", "set", "p"+name, "master", "br0", "up") }

// freeze stops all processes of a host: the master first, which starts no other then.
func (f fleet) freeze(name string) { f.signal(name, syscall.SIGSTOP) }

// thaw has them go on, by the same way.
func (f fleet) thaw(name string) { f.signal(name, syscall.SIGCONT) }

func (f fleet) signal(name string, sig syscall.Signal) {
	master := f[name].Process.Pid
	must(syscall.Kill(master, sig))
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(err)
	for _, path := range stats {
		b, _ := os.ReadFile(path) // or it has ended
		pid, rest, _ := strings.Cut(string(b), " ")
		_, rest, _ = strings.Cut(rest, ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == fmt.Sprint(master) {
			child, _ := strconv.Atoi(pid) // its directory's name
			must(syscall.Kill(child, sig))
		}
	}
}

// end asks all hosts to end, and waits for them.
func (f fleet) end() {
	for _, cmd := range f {
		_ = cmd.Process.Signal(syscall.SIGTERM) // or it has ended
	}
	for _, cmd := range f {
		_ = cmd.Wait() // its log says how it has ended
	}
}

func run(args ...string) {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		log.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// must ends the program on an error; the hosts end with it.
func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
