# Tests: what a removed cluster leaves on the machine. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # the variables are those of test.sh

# The containers of this cluster, whichever provider runs them.
containers() (
  if ! docker info >/dev/null 2>&1; then own_podman && tool=podman; fi
  "${tool:-docker}" ps --all --quiet --filter label=io.x-k8s.kind.cluster=acr-pull-self-test
)

# What a cluster could leave, without the chains of the firewall, which podman keeps. Another cluster has most of
# it, too: while one is up, only what is this one's counts.
others=$(pgrep -x conmon || true)
traces() {
  {
    containers
    ls -d "$state"
    [[ -n $others ]] || {
      # The first named network namespace of a machine, whoever creates it, makes this folder a mount for good.
      cut -d ' ' -f 5 /proc/self/mountinfo | grep -vx /run/netns
      ip -o link | awk -F '[:@] *' '{ print $2 }'
      ip -4 -o address | awk '{ print $2, $4 }'
      ip -4 route
      ls /run/netns
      iptables -t nat -S | grep -e --dport
      find /sys/fs/cgroup -type d | grep -E 'libpod|kube'
      ls -d /lib/modules
    }
  } 2>/dev/null | sort || true
}

# unchanged: fails for each trace that is new, and for each that has gone. Only the empty cgroups of a cluster that was killed
# may have gone: tidy.sh removes them for all. comm prints a tab before what is new.
unchanged() {
  equal "" "$(comm -3 "$work/traces" <(traces) | grep -v '^/sys/fs/cgroup/')"
}

down_leaves_nothing() {
  "$cluster" down
  unchanged
  "$cluster" down
}

is_starting() {
  [[ -n $(containers) ]]
}

down_leaves_nothing_of_a_cluster_that_was_killed_while_it_started() {
  local starting
  setsid "$cluster" up >"$work/up" 2>&1 &
  starting=$!
  await 60 is_starting
  kill -KILL -- "-$starting"
  contains "$("$cluster" status || true)" "broken (it did not start completely)"
  "$cluster" down
  unchanged
}
