/* Who: the facts of a process, taken in its own context at its first socket.
 * A process that never uses the network costs nothing but its arguments. */
#pragma once
#include "maps.h"

static __always_inline void execution_of(struct execution *id, struct task_struct *task)
{
	if (task->flags & PF_KTHREAD) {
		id->start = 0;
		id->tgid = 0;
		id->exec = 0;
		return;
	}
	id->tgid = task->tgid;
	id->exec = task->self_exec_id;
	id->start = task->group_leader->start_boottime;
}

/* The same for a task that is not the running one. */
static __always_inline void execution_of_other(struct execution *id, struct task_struct *task)
{
	struct task_struct *leader = NULL;
	id->start = 0;
	id->tgid = 0;
	id->exec = 0;
	KREAD(id->tgid, task->tgid);
	KREAD(id->exec, task->self_exec_id);
	KREAD(leader, task->group_leader);
	KREAD(id->start, leader->start_boottime);
}

/* One step of a path from its leaf to the root, across mounts. */
struct walk {
	struct dentry *dentry;
	struct vfsmount *vfsmount;
	struct mount *mount;
	u32 length, names;
};

static __always_inline int step(struct walk *walk, char *buffer, u32 size)
{
	struct dentry *root = NULL, *parent = NULL;
	struct mount *above = NULL;
	const unsigned char *name = NULL;
	struct dentry *dentry = walk->dentry;
	struct vfsmount *vfsmount = walk->vfsmount;
	struct mount *mount = walk->mount;

	if (!dentry)
		return 1;
	KREAD(root, vfsmount->mnt_root);
	KREAD(parent, dentry->d_parent);
	if (dentry == root || dentry == parent) {
		KREAD(above, mount->mnt_parent);
		if (above && above != mount) {
			dentry = NULL;
			KREAD(dentry, mount->mnt_mountpoint);
			walk->dentry = dentry;
			walk->mount = above;
			walk->vfsmount = (struct vfsmount *)((char *)above + field_offset(struct mount, mnt));
			return 0;
		}
		/* The root of everything. A file that has a name and no
		 * directory, such as a memfd, still has that name. */
		if (walk->names || dentry == root)
			return 1;
	}
	KREAD(name, dentry->d_name.name);
	u32 at = walk->length;
	if (at >= size)
		return 1;
	barrier_var(at);
	at &= size - 1;
	long length = bpf_probe_read_kernel_str(buffer + at, NAME_SIZE, name);
	if (length <= 0)
		return 1;
	walk->length += length;
	walk->names++;
	walk->dentry = dentry == parent ? NULL : parent;
	return 0;
}

static __always_inline void begin(struct walk *walk, struct dentry *dentry, struct vfsmount *vfsmount)
{
	walk->dentry = dentry;
	walk->vfsmount = vfsmount;
	walk->mount = (struct mount *)((char *)vfsmount - field_offset(struct mount, mnt));
	walk->length = walk->names = 0;
}

/* Unrolled: kernels up to 6.1 refuse a loop that clang closes by falling
 * through ("back-edge from insn"). */
#define WALK(walk, buffer, size, steps)                                                                              \
	({                                                                                                           \
		int cut_ = 1;                                                                                        \
		_Pragma("clang loop unroll(full)") for (int i_ = 0; i_ < (steps); i_++) if (step(walk, buffer, size)) { \
			cut_ = 0;                                                                                    \
			break;                                                                                       \
		}                                                                                                    \
		cut_;                                                                                                \
	})

static __always_inline void executable_of(struct exe *exe, struct mm_struct *mm)
{
	struct file *file = NULL;
	struct dentry *dentry = NULL;
	struct vfsmount *vfsmount = NULL;
	struct inode *inode = NULL;
	struct walk walk;

	exe->inode = 0;
	exe->links = 1;
	exe->length = 0;
	exe->cut = 0;
	exe->zero = 0;
	if (!mm)
		return;
	KREAD(file, mm->exe_file);
	if (!file)
		return;
	KREAD(dentry, file->f_path.dentry);
	KREAD(vfsmount, file->f_path.mnt);
	KREAD(inode, dentry->d_inode);
	KREAD(exe->inode, inode->i_ino);
	KREAD(exe->links, inode->i_nlink);
	begin(&walk, dentry, vfsmount);
	exe->cut = WALK(&walk, exe->path, PATH_SIZE, 24);
	exe->length = walk.length;
}

static __always_inline u32 working_directory_of(char *buffer, struct task_struct *task)
{
	struct fs_struct *fs = NULL;
	struct dentry *dentry = NULL;
	struct vfsmount *vfsmount = NULL;
	struct walk walk;

	KREAD(fs, task->fs);
	if (!fs)
		return 0;
	KREAD(dentry, fs->pwd.dentry);
	KREAD(vfsmount, fs->pwd.mnt);
	if (!vfsmount)
		return 0;
	begin(&walk, dentry, vfsmount);
	/* A path that goes on is not reported: half of one would mislead. */
	return WALK(&walk, buffer, CWD_SIZE, 16) ? 0 : walk.length;
}

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node *parent = NULL;
	if (field_exists(((struct kernfs_node *)0)->__parent)) {
		KREAD(parent, node->__parent);
	} else {
		struct kernfs_node___before_6_15 *old = (void *)node;
		KREAD(parent, old->parent);
	}
	return parent;
}

static __always_inline struct kernfs_node *control_group_of(struct task_struct *task)
{
	struct css_set *set = NULL;
	struct cgroup *cgroup = NULL;
	struct kernfs_node *node = NULL;
	KREAD(set, task->cgroups);
	KREAD(cgroup, set->dfl_cgrp);
	KREAD(node, cgroup->kn);
	return node;
}

static __always_inline u32 control_group_path(char *buffer, struct kernfs_node *node)
{
	u32 total = 0;
#pragma clang loop unroll(full)
	for (int i = 0; i < 10; i++) {
		const char *name = NULL;
		struct kernfs_node *parent;
		u32 at = total;
		if (!node)
			break;
		parent = parent_of(node);
		if (!parent || at >= CGROUP_SIZE)
			break;
		KREAD(name, node->name);
		barrier_var(at);
		at &= CGROUP_SIZE - 1;
		long length = bpf_probe_read_kernel_str(buffer + at, CGROUP_NAME, name);
		if (length <= 0)
			break;
		total += length;
		node = parent;
	}
	return total;
}

static __always_inline u32 namespace_of_task(struct task_struct *task)
{
	struct nsproxy *proxy = NULL;
	struct net *net = NULL;
	u32 inum = 0;
	KREAD(proxy, task->nsproxy);
	if (proxy) {
		KREAD(net, proxy->net_ns);
		KREAD(inum, net->ns.inum);
	}
	return inum;
}

static __always_inline u32 namespace_of_socket(struct sock *sk)
{
	struct net *net = NULL;
	u32 inum = 0;
	KREAD(net, sk->__sk_common.skc_net.net);
	KREAD(inum, net->ns.inum);
	return inum;
}

/* An ancestor is reported once; its children name it by its execution. The
 * task comes as a number, so that the verifier looks at this function once. */
__noinline int report_ancestor(u64 address)
{
	struct task_struct *task = (void *)address;
	struct mm_struct *mm = NULL;
	struct execution id;
	u32 known = KNOWN_AS_ANCESTOR;

	execution_of_other(&id, task);
	if (!id.tgid || bpf_map_lookup_elem(&reported, &id))
		return 0;
	struct ancestor_record *record = bpf_ringbuf_reserve(&events, sizeof *record, 0);
	if (!record) {
		count(RING_FULL, 1);
		return 0;
	}
	record->kind = ANCESTOR;
	record->size = sizeof *record;
	record->time = bpf_ktime_get_boot_ns();
	record->id = id;
	record->args_length = record->args_known = 0;
	bpf_probe_read_kernel(record->comm, 16, __builtin_preserve_access_index(&task->comm));
	KREAD(mm, task->mm);
	executable_of(&record->exe, mm);
	struct arguments *arguments = bpf_map_lookup_elem(&arguments_of, &id);
	if (arguments) {
		record->args_known = 1 + (arguments->total > arguments->length);
		record->args_length = arguments->length;
		bpf_probe_read_kernel(record->args, ANCESTOR_ARGS, arguments->text);
	}
	bpf_ringbuf_submit(record, ring_flags());
	bpf_map_update_elem(&reported, &id, &known, BPF_ANY);
	return 0;
}

/* Reports the running process with its ancestors. */
static __noinline int report_process(struct execution *id)
{
	struct task_struct *task, *ancestor = NULL;
	const struct cred *cred = NULL;
	struct kernfs_node *node;
	struct mm_struct *mm = NULL;

	if (!id)
		return 0;
	struct process_record *record = bpf_ringbuf_reserve(&events, sizeof *record, 0);
	if (!record) {
		count(RING_FULL, 1);
		return 1;
	}
	task = bpf_get_current_task_btf();
	record->kind = PROCESS;
	record->size = sizeof *record;
	record->time = bpf_ktime_get_boot_ns();
	record->id = *id;
	record->uid = record->gid = record->login_uid = -1;
	KREAD(cred, task->cred);
	KREAD(record->uid, cred->euid.val);
	KREAD(record->gid, cred->egid.val);
	if (field_exists(((struct task_struct *)0)->loginuid))
		KREAD(record->login_uid, task->loginuid.val);
	record->netns = namespace_of_task(task);
	bpf_probe_read_kernel(record->comm, 16, __builtin_preserve_access_index(&task->comm));

	node = control_group_of(task);
	record->cgroup = 0;
	KREAD(record->cgroup, node->id);
	record->cgroup_length = control_group_path(record->cgroup_path, node);

	KREAD(ancestor, task->real_parent);
#pragma clang loop unroll(full)
	for (int i = 0; i < ANCESTORS; i++) {
		struct task_struct *next = NULL;
		record->ancestors[i].start = 0;
		record->ancestors[i].tgid = 0;
		record->ancestors[i].exec = 0;
		if (!ancestor)
			continue;
		execution_of_other(&record->ancestors[i], ancestor);
		KREAD(next, ancestor->real_parent);
		ancestor = record->ancestors[i].tgid <= 1 ? NULL : next;
	}

	record->cwd_length = working_directory_of(record->cwd, task);
	record->args_length = record->args_total = 0;
	KREAD(mm, task->mm);
	executable_of(&record->exe, mm);
	if (mm) {
		unsigned long from = 0, to = 0;
		KREAD(from, mm->arg_start);
		KREAD(to, mm->arg_end);
		u64 length = to - from;
		if (from && to > from) {
			record->args_total = length;
			if (length > ARGS_SIZE - 1)
				length = ARGS_SIZE - 1;
			barrier_var(length);
			if (bpf_probe_read_user(record->args, length & (ARGS_SIZE - 1), (void *)from) == 0)
				record->args_length = length;
		}
	}
	bpf_ringbuf_submit(record, ring_flags());
	return 0;
}

static __noinline int report_ancestors(void)
{
	struct task_struct *task = bpf_get_current_task_btf(), *ancestor = NULL;
	KREAD(ancestor, task->real_parent);
#pragma clang loop unroll(full)
	for (int i = 0; i < ANCESTORS; i++) {
		struct task_struct *next = NULL;
		u32 tgid = 0;
		if (!ancestor)
			break;
		KREAD(tgid, ancestor->tgid);
		report_ancestor((u64)ancestor);
		KREAD(next, ancestor->real_parent);
		ancestor = tgid <= 1 ? NULL : next;
	}
	return 0;
}

/* Once for each execution that opens or takes over a socket. */
static __always_inline void ensure_reported(struct execution *id)
{
	u32 known = KNOWN_AS_OWNER;
	u32 *before;
	if (!id->tgid)
		return;
	before = bpf_map_lookup_elem(&reported, id);
	if (before && *before == KNOWN_AS_OWNER)
		return;
	report_ancestors();
	if (report_process(id) == 0)
		bpf_map_update_elem(&reported, id, &known, BPF_ANY);
}
