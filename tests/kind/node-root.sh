#!/usr/bin/env bash
# node-root.sh BIN KIND ROOT: completes the Debian in the folder ROOT to a node of kind, from the programs in BIN and
# the sources of kind in KIND, as kind's images/base/Dockerfile and 'kind build node-image' do.
set -euo pipefail
bin=$1 base=$2/images/base/files root=$3
version=$("$bin/kubeadm" version --output short)

# --- kind's files
cp -r --no-preserve=mode "$base/." "$root/"
rm -r "$root/LICENSES"
chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
echo "$version" >"$root/kind/version"
for name in containerd ctr; do ln -s "/usr/bin/$name" "$root/usr/local/bin/$name"; done
mkdir -p "$root"/{opt/cni,etc/cni/net.d,etc/kubernetes/manifests,etc/containerd/certs.d,kind/manifests,lib/modules}
ln -s /usr/lib/cni "$root/opt/cni/bin"
# In a container, root may lack the right to lower a score. The base specification only hides the machine's serial
# number.
sed -i -e '/base_runtime_spec/d' -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
  "$root/etc/containerd/config.toml"
cat >>"$root/etc/containerd/config.toml" <<'TOML'
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
TOML
cat >"$root/kind/manifests/default-storage.yaml" <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/host-path
YAML

# --- systemd: only what a node needs
ln -s /lib/systemd/systemd "$root/sbin/init"
rm -f "$root"/{lib,etc}/systemd/system/{multi-user,local-fs}.target.wants/*
rm -f "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
find "$root/lib/systemd/system/sysinit.target.wants" -name systemd-tmpfiles-setup.service -delete
echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service
chroot "$root" systemctl mask systemd-binfmt.service

# --- Kubernetes, for the node and, in one image with many names, for its Pods: kube-proxy needs iptables there
cp -a "$bin/." "$root/usr/bin/"
images=$(mktemp -d)
trap 'rm -rf "$images"' EXIT
pod=$images/pod
mkdir -p "$pod/usr/local/bin"
cp -a "$bin/." "$pod/usr/local/bin/"
# The extensions of iptables are loaded when a rule names them, and some need libraries that iptables does not.
# shellcheck disable=SC2016 # expanded in the chroot
chroot "$root" sh -c '
  set -- /usr/sbin/ip*tables /usr/sbin/ip*tables-save /usr/sbin/ip*tables-restore /usr/sbin/nft /usr/sbin/conntrack \
    /usr/lib/*/xtables/*.so
  { printf "%s\n" "$@"; ldd "$@" | grep -o "/lib[^ :]*"; } | sort -u |
    tar -C / --dereference -cf - --files-from -' | tar -C "$pod" -xf -
chroot "$pod" /usr/sbin/iptables -m statistic --help >/dev/null
tar -C "$pod" --owner=0 --group=0 -cf "$images/layer.tar" .
layer=$(sha256sum <"$images/layer.tar" | cut -d ' ' -f 1)
cat >"$images/config.json" <<JSON
{"architecture":"$(dpkg --print-architecture)","os":"linux","config":{"Env":["PATH=/usr/local/bin:/usr/sbin"]},
  "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
JSON
names=$("$bin/kubeadm" config images list --kubernetes-version "$version" |
  grep -ve /coredns/ -e /pause: | sed 's/.*/"&"/' | paste -sd ,)
printf '[{"Config":"config.json","RepoTags":[%s],"Layers":["layer.tar"]}]\n' "$names" >"$images/manifest.json"
tar -C "$images" -cf "$root/images.tar" manifest.json config.json layer.tar
cp "$bin/../pause.tar" "$root/pause.tar"

# The node's own containerd imports the images. It unpacks them when a node starts, for the snapshotter that works.
# shellcheck disable=SC2016 # expanded in the chroot
chroot "$root" sh -ec '
  containerd --log-level warn &
  tries=100
  until ctr version >/dev/null 2>&1; do
    tries=$((tries - 1)) && test "$tries" -gt 0
    sleep 0.1
  done
  for file in images pause; do
    ctr --namespace k8s.io images import --label io.cri-containerd.pinned=pinned --no-unpack "/$file.tar"
  done
  pause=$(sed -n "s/.*sandbox_image = \"\(.*\)\"/\1/p" /etc/containerd/config.toml)
  ctr --namespace k8s.io images tag cluster.local/pause:1 "$pause"
  kill "$!"
  wait "$!" || true
  rm -r /images.tar /pause.tar'
