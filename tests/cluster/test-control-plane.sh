# The tests of build.sh, packages.sh and control-plane.sh: no root needed. Sourced by test.sh.
# shellcheck shell=bash disable=SC2154 # $here, $work and $bin are test.sh's

# start_control_plane DIR: as a test would, holding its stdin. Sets $pid and the descriptor $stdin.
start_control_plane() {
  mkfifo "$1.stdin"
  "$here/control-plane.sh" "$1" <"$1.stdin" >"$1.out" 2>"$1.err" &
  pid=$!
  exec {stdin}>"$1.stdin"
}

await_control_plane() {
  await 60 grep -q ^ready "$1.out" || { cat "$1.err" && return 1; }
  equal "ready kubeconfig=$1/kubeconfig" "$(<"$1.out")"
}

# ends PID: within seconds; its status is the process's.
ends() {
  await 10 process_is_gone "$1" || { echo "process $1 has not ended within 10 s" && return 1; }
  wait "$1"
}

process_is_gone() {
  ! grep -q '^State:[[:space:]]*[^Z]' "/proc/$1/status" 2>/dev/null
}

# Each process of a control plane works in its folder.
nobody_works_in() {
  [[ -z $(find /proc -maxdepth 2 -name cwd -lname "$1" 2>/dev/null) ]]
}

# pid_of NAME DIR
pid_of() {
  local process
  for process in $(find /proc -maxdepth 2 -name cwd -lname "$2" 2>/dev/null | cut -d / -f 3); do
    [[ $(<"/proc/$process/comm") != "$1" ]] || echo "$process"
  done
}

an_api_server_goes_and_comes_back_as_asked_and_keeps_what_it_held() {
  start_control_plane "$work/away"
  await_control_plane "$work/away"
  local kubectl=("$work/away/bin/kubectl" --kubeconfig="$work/away/kubeconfig")
  "${kubectl[@]}" create configmap kept
  echo "stop kube-apiserver" >&"$stdin"
  await 10 not "${kubectl[@]}" get configmap kept
  # However close together, none is lost.
  printf '%s kube-apiserver\n' start stop start >&"$stdin"
  await 30 "${kubectl[@]}" get configmap kept
  exec {stdin}>&-
  ends "$pid"
  nobody_works_in "$work/away"
}

not() {
  ! "$@" &>/dev/null
}

three_control_planes_run_at_once_and_end_with_their_stdin() {
  local each stdins=() pids=() dir
  for each in 1 2 3; do
    start_control_plane "$work/three-$each"
    stdins+=("$stdin") pids+=("$pid")
  done
  for each in 1 2 3; do
    dir=$work/three-$each
    await_control_plane "$dir"
    equal ok "$("$dir/bin/kubectl" --kubeconfig="$dir/kubeconfig" get --raw=/readyz)"
    "$dir/bin/kubectl" --kubeconfig="$dir/kubeconfig" create configmap "only-$each"
    equal 600 "$(stat -c %a "$dir/kubeconfig")"
  done
  dir=$work/three-2
  equal "kube-root-ca.crt only-2" "$("$dir/bin/kubectl" --kubeconfig="$dir/kubeconfig" get configmaps -o 'jsonpath={.items[*].metadata.name}')"
  for each in 0 1 2; do
    stdin=${stdins[each]}
    exec {stdin}>&-
    ends "${pids[each]}"
    nobody_works_in "$work/three-$((each + 1))"
    equal log "$(ls "$work/three-$((each + 1))")"
  done
}

a_control_plane_without_a_node_accepts_pods_and_collects_garbage() {
  local dir=$work/pods owner
  start_control_plane "$dir"
  await_control_plane "$dir"
  kubectl() { "$dir/bin/kubectl" --kubeconfig="$dir/kubeconfig" "$@"; }
  kubectl run nobody --image=example.com/none
  kubectl create namespace other
  await 10 kubectl -n other get serviceaccount default
  # base64 complains of the padding that tokens lack, after having decoded all.
  contains "$(kubectl create token default --audience=api://AzureADTokenExchange | cut -d . -f 2 | tr -- -_ +/ | base64 -d 2>/dev/null || true)" \
    '"iss":"https://kubernetes.default.svc.cluster.local"'
  kubectl create configmap owner
  owner=$(kubectl get configmap owner -o 'jsonpath={.metadata.uid}')
  kubectl create configmap owned
  kubectl patch configmap owned -p "{\"metadata\":{\"ownerReferences\":[{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"name\":\"owner\",\"uid\":\"$owner\"}]}}"
  kubectl delete configmap owner
  kubectl wait --for=delete configmap/owned --timeout=30s
  exec {stdin}>&-
  ends "$pid"
}

a_control_plane_ends_when_its_caller_is_killed() {
  local dir=$work/caller caller
  # sleep stands for the test that holds the other end of the pipe.
  (
    sleep 1000 | "$here/control-plane.sh" "$dir" >"$dir.out" 2>"$dir.err"
  ) &
  await_control_plane "$dir"
  caller=$(pgrep -P "$!" -x sleep)
  kill -KILL "$caller"
  await 5 nobody_works_in "$dir"
}

no_child_outlives_a_kill_of_the_control_plane() {
  local dir=$work/killed
  start_control_plane "$dir"
  await_control_plane "$dir"
  kill -KILL "$pid"
  await 5 nobody_works_in "$dir"
}

a_control_plane_ends_on_sigterm() {
  local dir=$work/term status=0
  start_control_plane "$dir"
  await_control_plane "$dir"
  kill "$pid"
  ends "$pid" || status=$?
  equal 143 "$status"
  nobody_works_in "$dir"
}

a_component_that_dies_is_named_and_ends_the_control_plane() {
  local dir=$work/component status=0
  start_control_plane "$dir"
  await_control_plane "$dir"
  kill -KILL "$(pid_of kube-scheduler "$dir")"
  ends "$pid" || status=$?
  equal 1 "$status"
  contains "$(<"$dir.err")" "kube-scheduler ended"
  nobody_works_in "$dir"
}

a_component_that_cannot_start_is_named_with_its_last_log_lines() {
  local dir=$work/broken said
  mkdir "$work/broken-bin"
  cp -P "$bin"/* "$work/broken-bin/"
  rm "$work/broken-bin/etcd"
  printf '#!/bin/sh\necho "disk on fire"\nexit 1\n' >"$work/broken-bin/etcd"
  chmod +x "$work/broken-bin/etcd"
  mkfifo "$dir.stdin"
  said=$(refusal "$here/control-plane.sh" --bin "$work/broken-bin" "$dir" <>"$dir.stdin")
  contains "$said" "disk on fire"
  contains "$said" "etcd ended"
  rm -r "$work/broken-bin"
}

a_port_that_is_taken_meanwhile_is_given_up_for_another() {
  local dir=$work/port taken
  # An API server that finds its first port taken: this one ends as the real one does then.
  mkdir "$work/port-bin"
  cp -P "$bin"/* "$work/port-bin/"
  taken=$work/port-bin/taken
  rm "$work/port-bin/kube-apiserver"
  cat >"$work/port-bin/kube-apiserver" <<SH
#!/bin/bash
[[ -e $taken ]] && exec "$bin/kube-apiserver" "\$@"
touch $taken
echo "failed to listen: bind: address already in use"
exit 1
SH
  chmod +x "$work/port-bin/kube-apiserver"
  mkfifo "$dir.stdin"
  "$here/control-plane.sh" --bin "$work/port-bin" "$dir" <"$dir.stdin" >"$dir.out" 2>"$dir.err" &
  pid=$!
  exec {stdin}>"$dir.stdin"
  await_control_plane "$dir"
  contains "$(<"$dir.err")" "trying another (1 of 5)"
  exec {stdin}>&-
  ends "$pid"
  rm -r "$work/port-bin"
}

a_folder_with_something_in_it_is_refused_and_left_alone() {
  mkdir "$work/full"
  echo precious >"$work/full/file"
  contains "$(refusal "$here/control-plane.sh" "$work/full")" "is not empty"
  equal precious "$(<"$work/full/file")"
  equal file "$(ls "$work/full")"
}

a_missing_or_old_go_is_one_clear_sentence() {
  local said tools=$work/tools
  mkdir "$tools"
  ln -s /usr/bin/* "$tools/"
  rm -f "$tools/go"
  said=$(refusal env PATH="$tools" XDG_CACHE_HOME="$work/empty" "$here/build.sh")
  contains "$said" "no 'go' is in PATH: install it from https://go.dev/dl/"
  equal 1 "$(wc -l <<<"$said")"

  printf '#!/bin/sh\necho go1.20.1\n' >"$tools/go"
  chmod +x "$tools/go"
  said=$(refusal env PATH="$tools" XDG_CACHE_HOME="$work/empty" "$here/build.sh")
  contains "$said" "but $tools/go is 1.20.1"
  equal 1 "$(wc -l <<<"$said")"
  # Nothing half-made is left behind for a later build to take for whole.
  equal "" "$(find "$work/empty" -mindepth 4 -type d)"
}

two_builds_at_once_build_once() {
  local folder=$work/once
  fill_slowly() {
    echo built >>"$work/builds"
    sleep 1
    touch "$1/file"
  }
  build_once "$folder" fill_slowly &
  build_once "$folder" fill_slowly
  wait "$!"
  equal built "$(<"$work/builds")"
  equal file "$(ls "$folder")"
}

missing_packages_are_named_where_they_cannot_be_installed() {
  # As a user who is not root, from a copy, since that user may not be allowed into this folder.
  local said runner=() copy
  copy=$(mktemp -d)
  cp "$here/packages.sh" "$here/lib.sh" "$copy"
  chmod -R a+rX "$copy"
  ((EUID != 0)) || runner=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  said=$(refusal "${runner[@]}" "$copy/packages.sh" bash no-such-package)
  rm -r "$copy"
  contains "$said" "missing Debian packages: no-such-package. Run: sudo apt-get install --no-install-recommends no-such-package"
}

check three_control_planes_run_at_once_and_end_with_their_stdin
check an_api_server_goes_and_comes_back_as_asked_and_keeps_what_it_held
check a_control_plane_without_a_node_accepts_pods_and_collects_garbage
check a_control_plane_ends_when_its_caller_is_killed
check no_child_outlives_a_kill_of_the_control_plane
check a_control_plane_ends_on_sigterm
check a_component_that_dies_is_named_and_ends_the_control_plane
check a_component_that_cannot_start_is_named_with_its_last_log_lines
check a_port_that_is_taken_meanwhile_is_given_up_for_another
check a_folder_with_something_in_it_is_refused_and_left_alone
check a_missing_or_old_go_is_one_clear_sentence
check two_builds_at_once_build_once
check missing_packages_are_named_where_they_cannot_be_installed
