#!/bin/bash
# A cluster of hosts: status, apply and revert with --cluster. Run in the chroot by tests/packages.sh, in a network
# namespace of its own.
#
# Each node is a copy of the chroot with an address, an sshd and a host key of its own; /etc/pve is one folder for all, as
# pmxcfs gives it to them, but for .members, which says who one is.
# shellcheck source=tests/packages/lib.sh
. "$(dirname "$0")/lib.sh"
: >/run/test/output

# The exit code where not all nodes are as they should be.
wrong=20
nodes=(pve1 pve2 pve3)
declare -A address=([pve1]=10.99.0.1 [pve2]=10.99.0.2 [pve3]=fd99::3)
known=/pve/nodes

apt-get update >/run/test/setup 2>&1 && $install "${all_old[@]}" "${ours_now[@]}" >>/run/test/setup 2>&1 &&
	pve-diff-backup revert >>/run/test/setup || {
	cat /run/test/setup
	exit 1
}

# One switch, one cable to each node.
ip link set lo up
ip link add switch type bridge
ip link set switch up
mount -t tmpfs nodes /mnt
mkdir -p /pve/priv /root/.ssh /run/sshd
chmod 700 /root/.ssh
ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /pve/priv/authorized_keys
ln -s /etc/pve/priv/authorized_keys /root/.ssh/authorized_keys
mkdir -p /etc/pve
touch /pve/.members

members() { # NODE...: as pmxcfs writes it on each node while these are online
	local me node list
	for me in "${nodes[@]}"; do
		list=
		for node in "${nodes[@]}"; do
			list+="${list:+,
}  \"$node\": { \"id\": ${node#pve}, \"online\": $([[ " $* " = *" $node "* ]] && echo 1 || echo 0), \"ip\": \"${address[$node]}\"}"
		done
		printf '{\n"nodename": "%s",\n"version": 3,\n"cluster": { "name": "lab", "version": 3, "nodes": 3, "quorate": 1 },\n"nodelist": {\n%s\n  }\n}\n' \
			"$me" "$list" >"/mnt/$me.members"
	done
}
members "${nodes[@]}"

on() { # NODE COMMAND...
	nsenter --net="/run/netns/$1" chroot "/mnt/$1" "${@:2}"
}
start_sshd() { # NODE
	(exec nsenter --net="/run/netns/$1" chroot "/mnt/$1" /usr/sbin/sshd -D -E /run/test/sshd >/dev/null 2>&1) &
	sshd[${1#pve}]=$!
	for _ in {1..100}; do
		on "$1" bash -c 'exec 3<>/dev/tcp/127.0.0.1/22' 2>/dev/null && return
		sleep 0.1
	done
	echo "no sshd on $1:"
	cat "/mnt/$1/run/test/sshd"
	exit 1
}
sshd=()
trap 'kill "${sshd[@]}" 2>/dev/null' EXIT
for node in "${nodes[@]}"; do
	mkdir -p /mnt/$node /mnt/$node.upper /mnt/$node.work
	mount -t overlay -o lowerdir=/,upperdir=/mnt/$node.upper,workdir=/mnt/$node.work $node /mnt/$node
	mount -t proc proc /mnt/$node/proc
	mount -t tmpfs run /mnt/$node/run
	mkdir -p /mnt/$node/dev/pts
	mount -t devpts -o newinstance,ptmxmode=666 devpts /mnt/$node/dev/pts
	ln -sf pts/ptmx /mnt/$node/dev/ptmx
	mkdir -p /mnt/$node/run/sshd /mnt/$node/run/test
	mount --bind /pve /mnt/$node/etc/pve
	mount --bind /mnt/$node.members /mnt/$node/etc/pve/.members
	ip netns add $node
	ip link add $node type veth peer name eth0 netns $node
	ip link set $node master switch up
	ip -n $node link set lo up
	ip -n $node link set eth0 up
	ip -n $node address add 10.99.0.${node#pve}/24 dev eth0
	ip -n $node address add fd99::${node#pve}/64 dev eth0 nodad
	rm -f /mnt/$node/etc/ssh/ssh_host_*
	on $node ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
	mkdir -p $known/$node
	echo "$node $(cut -d' ' -f1,2 /mnt/$node/etc/ssh/ssh_host_ed25519_key.pub)" >$known/$node/ssh_known_hosts
	start_sshd $node
done

cat >/pve/jobs.cfg <<'JOBS'
vzdump: backup-all
	schedule 02:00
	fullbackup 7
	storage nas

vzdump: backup-pve2
	node pve2
	fullbackup 30
	enabled 0

vzdump: backup-full
	storage nas
JOBS
cat >/pve/vzdump.cron <<'CRON'
0 3 * * *           root vzdump 100 --quiet 1 --fullbackup 7 --node pve3
CRON

run() { # EXIT CODE NODE ARGUMENT...: our program
	name="$2: ${*:3}"
	echo "== $name"
	on "$2" pve-diff-backup "${@:3}" </dev/null >/run/test/out 2>/run/test/err
	local code=$?
	# Patched, and something else is told, of the machines this runs on or of other nodes.
	[ "$1$code$3$4" = 021status--cluster ] && code=0
	cat /run/test/out /run/test/err >/run/test/output
	check "exit code $code" test $code = "$1"
}
says() { check "$*" grep -F -- "$*" /run/test/output; }
says_not() { check "not: $*" test -z "$(grep -F -- "$*" /run/test/output)"; }
row() { # NODE WORD...: its line of the last table begins so
	local words="${*:2}"
	check "row of $1: $words" test "$(awk -v node="$1" '$1 == node { sub(/ \(here\)/, ""); $1 = ""; line = $0 } END { print line }' \
		/run/test/output | cut -c "2-$((${#words} + 1))")" = "$words"
}
stands() { # EXIT CODE of status on pve1, pve2, pve3: asked on each node itself, and its files looked at
	local node want
	for node in "${nodes[@]}"; do
		want=$1
		shift
		on $node /usr/bin/pve-diff-backup status >/run/test/check 2>&1
		local got=$?
		# Patched, and what other nodes lack is told.
		[ "$want$got" = 021 ] && got=0
		check "$node stands at $want" test $got = "$want"
		case $want in
		0) check "$node: files patched" on $node grep -q pve-diff-backup: /usr/share/perl5/PVE/Storage.pm ;;
		3) check "$node: files pristine" test -z "$(on $node dpkg --verify "${pve[@]}")" ;;
		esac
	done
}
json() { # EXPRESSION in Perl about $r
	check "JSON: $1" perl -MJSON::PP -0777 -e 'my $r = JSON::PP->new->decode(<STDIN>); exit(eval($ARGV[0]) ? 0 : 1)' "$1" </run/test/out
}
wrap() { # NODE: its program becomes the script on standard input
	cat >/mnt/$1/usr/local/bin/pve-diff-backup
	chmod 755 /mnt/$1/usr/local/bin/pve-diff-backup
}
unwrap() { rm /mnt/$1/usr/local/bin/pve-diff-backup; }

run $wrong pve1 status --cluster
row pve1 unpatched 0
row pve2 unpatched
row pve3 unpatched
says "cluster lab, 3 nodes"
says "8.4.20"
says "backup-all: every 7 days, all nodes; only full backups on pve1, pve2, pve3 (not patched)"
says "backup-pve2: every 30 days, node pve2, disabled; only full backups on pve2"
says "vzdump.cron line 1: every 7 days, node pve3; REFUSED, so no backups at all, on pve3"
says_not backup-full

run 15 pve1 apply --cluster
stands 3 3 3
run 0 pve1 apply --cluster --yes
row pve1 patched done
row pve3 patched done
says_not "not patched"
stands 0 0 0
check "this node comes first" test "$(sed -n 's/^pve-diff-backup: \(pve[123]:\)$/\1/p' /run/test/err | tr -d '\n')" = pve1:pve2:pve3:
run 0 pve2 apply --cluster --yes --json
json '@{$r->{nodes}} == 3 && $r->{nodes}[0]{name} eq "pve2" && $r->{nodes}[0]{own} && !$r->{exit}'
json '!grep { $_->{action} ne "done" || $_->{status}{overall} ne "patched" } @{$r->{nodes}}'
run 0 pve3 status --cluster --json
json '$r->{cluster} eq "lab" && $r->{nodes}[0]{name} eq "pve3"'
json '$r->{nodes}[1]{status}{packages}[0]{version} eq "8.4.20" && $r->{nodes}[1]{status}{program}'
json '@{$r->{jobs}} == 3 && !grep { @{$_->{unpatched}} || @{$_->{unknown}} } @{$r->{jobs}}'
run 0 pve3 revert --cluster --yes
stands 3 3 3

# The list of all host keys, as before 8.1; then none at all.
mkdir /pve/aside
mv $known/* /pve/aside/
cat /pve/aside/*/ssh_known_hosts >/pve/priv/known_hosts
for node in "${nodes[@]}"; do ln -sf /etc/pve/priv/known_hosts /mnt/$node/etc/ssh/ssh_known_hosts; done
run $wrong pve1 status --cluster
row pve2 unpatched
rm /mnt/pve?/etc/ssh/ssh_known_hosts
run $wrong pve1 status --cluster
row pve2 unknown
says "its host key is not the one that the cluster knows"
mv /pve/aside/* $known/
rmdir /pve/aside

cp $known/pve3/ssh_known_hosts $known/pve2/ssh_known_hosts
sed -i 's/pve3/pve2/' $known/pve2/ssh_known_hosts
run $wrong pve1 apply --cluster --yes
says "nothing was changed on any node: pve2 (its host key is not"
row pve2 unknown "not reached"
stands 3 3 3
echo "pve2 $(cut -d' ' -f1,2 /mnt/pve2/etc/ssh/ssh_host_ed25519_key.pub)" >$known/pve2/ssh_known_hosts

mv /mnt/pve2/root/.ssh/authorized_keys /mnt/pve2/root/keys
run $wrong pve1 apply --cluster --yes
says "root may not log in without a password"
stands 3 3 3
mv /mnt/pve2/root/keys /mnt/pve2/root/.ssh/authorized_keys

members pve1 pve2
run $wrong pve1 apply --cluster --yes
says "nothing was changed on any node: pve3 (offline)"
row pve3 offline
stands 3 3 3
run 0 pve1 apply --cluster --yes --skip-offline
row pve3 offline "left out"
says "backup-all: every 7 days, all nodes; unknown on pve3"
stands 0 0 3
run $wrong pve1 status --cluster
run 0 pve1 status --cluster --skip-offline
members "${nodes[@]}"

kill "${sshd[3]}"
run $wrong pve1 status --cluster
says "pve3: cannot be reached"
says "Connection refused"
row pve2 patched
start_sshd pve3
ip link set pve3 down
run $wrong pve1 revert --cluster --yes
says "nothing was changed on any node: pve3 (cannot be reached"
stands 0 0 3
ip link set pve3 up

on pve3 dpkg --remove pve-diff-backup >/dev/null 2>&1
run $wrong pve1 apply --cluster --yes
says "pve3 (pve-diff-backup is not installed there)"
on pve3 dpkg -i /repository/pve-diff-backup_"$version"_amd64.deb >/dev/null 2>&1
on pve3 pve-diff-backup apply >/dev/null

wrap pve3 <<'OLDER'
#!/bin/sh
/usr/bin/pve-diff-backup "$@" | sed 's/"program": .*/"program": "0.0.9",/'
OLDER
run 0 pve1 status --cluster
row pve3 patched 0.0.9
says "the nodes have different versions of pve-diff-backup"
wrap pve3 <<'MUCH_OLDER'
#!/bin/sh
echo "welcome to pve3"
/usr/bin/pve-diff-backup "$@" | sed '/"program": /d'
MUCH_OLDER
run 0 pve1 status --cluster
row pve3 patched older
printf '#!/bin/sh\nprintf "\\033[31m{ hello"\nexit 3\n' | wrap pve3
run $wrong pve1 status --cluster
row pve3 unknown
says 'status there ended with code 3 and said: \x1b[31m{ hello'
unwrap pve3

run 0 pve1 revert --cluster --yes
mount --bind /mnt/pve2/usr/share/perl5 /mnt/pve2/usr/share/perl5
mount -o remount,bind,ro /mnt/pve2/usr/share/perl5
run $wrong pve1 apply --cluster --yes
says "stopped at pve2: apply ended with code 13"
says "Read-only file system"
row pve1 patched done
row pve2 unpatched FAILED
row pve3 unpatched "not reached"
says "backup-all: every 7 days, all nodes; only full backups on pve2, pve3 (not patched)"
stands 0 3 3
run $wrong pve1 apply --cluster --yes --json
json '$r->{exit} == '$wrong' && $r->{problem} =~ /pve2/ && join(",", map { $_->{action} } @{$r->{nodes}}) eq "done,failed,not-reached"'
umount /mnt/pve2/usr/share/perl5
run 0 pve1 apply --cluster --yes
stands 0 0 0

# Ctrl-C while pve2 is being reverted: a terminal sends it to all processes of the command.
wrap pve2 <<'WAITS'
#!/bin/bash
if [ "$1" = revert ]; then
	touch /run/test/begun
	until [ -e /run/test/go ]; do sleep 0.05; done
fi
exec /usr/bin/pve-diff-backup "$@"
WAITS
name="Ctrl-C"
setsid nsenter --net=/run/netns/pve1 chroot /mnt/pve1 pve-diff-backup revert --cluster --yes >/run/test/output 2>&1 </dev/null &
command=$!
for _ in {1..600}; do [ ! -e /mnt/pve2/run/test/begun ] || break; sleep 0.1; done
kill -INT -- -$command
touch /mnt/pve2/run/test/go
wait $command
check "exit code" test $? = $wrong
says "interrupted before pve3"
row pve2 unpatched done
row pve3 patched "not reached"
stands 3 3 0

# The connection is lost in the middle: our parent there is sshd.
wrap pve2 <<'LOST'
#!/bin/bash
[ "$1" = apply ] || exec /usr/bin/pve-diff-backup "$@"
kill -9 $PPID
/usr/bin/pve-diff-backup "$@"
touch /run/test/ended
LOST
run $wrong pve1 apply --cluster --yes
says "stopped at pve2: broke off"
says "may go on there"
row pve1 patched done
row pve3 patched "not reached"
unwrap pve2
# It does go on: until it ends, it holds the lock.
for _ in {1..600}; do [ ! -e /mnt/pve2/run/test/ended ] || break; sleep 0.1; done
run 0 pve1 apply --cluster --yes
stands 0 0 0

name="the question"
echo "== $name"
on pve1 script -qec "pve-diff-backup revert --cluster" /dev/null <<<n >/run/test/output 2>&1
check "no: exit code" test $? = 15
says "one after another?"
stands 0 0 0
on pve1 script -qec "pve-diff-backup revert --cluster" /dev/null <<<y >/run/test/output 2>&1
check "yes: exit code" test $? = 0
stands 3 3 3

$install -o Dir::Cache::Archives=/tmp "${ours_now[@]}" >/dev/null 2>&1
on pve3 apt-get install pve-manager=9.9.1 >/dev/null 2>&1
run $wrong pve1 apply --cluster --yes
says "pve3 (cannot be patched)"
says "exec_backup_task"
stands 3 3 8
run 0 pve1 revert --cluster --yes

hostile=$(sed 's/"pve2": {/"pve2 -oProxyCommand=x": {/' /mnt/pve1.members)
echo "$hostile" >/mnt/pve1.members
run 1 pve1 status --cluster
says "is no name of a node"
echo '{' >/mnt/pve1.members
run 1 pve1 apply --cluster --yes
says "/etc/pve/.members"
printf '{\n"nodename": "pve1",\n"version": 2\n}\n' >/mnt/pve1.members
run 0 pve1 apply --cluster --yes
says "this host is in no cluster"
stands 0 3 8
umount /mnt/pve1/etc/pve/.members /mnt/pve1/etc/pve
run 1 pve1 status --cluster
says "does its cluster file system run"
run 2 pve1 status --cluster --root /mnt
run 2 pve1 apply --skip-offline

finish
