#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The view of the spool: what everybody without the library sees and does, and what happens when its server dies.

Third parties run their commands twice: on the view, and on a plain directory with the same queue.  Output, exit status and
the tree afterwards must be the same.
"""
import hashlib
import os
import pathlib
import pwd
import re
import shutil
import stat
import subprocess
import threading
import time

from harness import LIBRARY, QUEUE_ONLY, USER, Client, Message, Skip, check, kill, main, processes, suspend, test, wait_for
from viewed import View, is_view

VIEW = {"view": "stock"}          # --stock compares two plain directories
TICK = 0.02                       # seconds: Exim lists messages of one tick of its clock as it finds them in the directory
SPLIT = QUEUE_ONLY + ("split_spool_directory = true",)
MANY = 300              # messages in the queue of the tests of death


# --- the queue of a test ------------------------------------------------------------------------------------------

def tree(top, times=False):
    """{path: what stat and the content say} below TOP."""
    found = {}
    for root, directories, files in os.walk(top):
        for name in directories + files:
            if name in ("index", "config") and root.endswith(".git"):
                continue                    # git keeps times and inode numbers there, and that there are no symbolic links
            path = f"{root}/{name}"
            about = os.lstat(path)
            told = [stat.filemode(about.st_mode), about.st_uid, about.st_gid, about.st_nlink]
            if stat.S_ISREG(about.st_mode):
                content = re.sub(rb"^-frozen [0-9]+$", b"-frozen", pathlib.Path(path).read_bytes(), flags=re.M)   # the second
                told += [about.st_size, hashlib.sha256(content).hexdigest()[:12]]
                told += [about.st_mtime_ns] if times else []
            found[path[len(str(top)) + 1:]] = told
    return found


def unequal(one, other):
    """A sentence about how two trees differ, or None."""
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return f"{len(keys)} differ: " + "; ".join(f"{key}: {one.get(key)}, view {other.get(key)}" for key in keys[:4]) if keys else None


class Sides:
    """The same queue in a plain directory and in the view.  Files of db/ lie on the disk in both."""

    def __init__(self, exim, main):
        self.exim, self.main = exim, main
        self.plain, self.view = exim.work / "plain", exim.spool
        self.plain.mkdir()
        exim.own(self.plain)
        exim.mount_view()
        self.use(self.plain)
        self.fill()
        for name in ("input", "msglog"):
            (self.view / name).mkdir(exist_ok=True)         # (--stock)
            subprocess.run(["cp", "-a", f"{self.plain}/{name}/.", f"{self.view}/{name}"], check=True)
        shutil.copytree(self.plain / "db", self.view / "db")
        subprocess.run(["chown", "-R", "Debian-exim:Debian-exim", self.view / "db"], check=True)
        difference = unequal(*(tree(side / name, times=True) for name in ("input",) for side in (self.plain, self.view)))
        check(not difference, f"cp -a into the view: {difference}")

    def use(self, place):
        """Point Exim's configuration at PLACE."""
        spool, self.exim.spool = self.exim.spool, place
        self.exim.configure(self.main)
        self.exim.spool = spool

    def fill(self):
        """A queue with deferred, frozen, large and named messages, made by stock Exim."""
        exim = self.exim
        exim.sink.refusals = 1000
        for number in range(12):
            size = 200000 if number == 3 else 1000 + 500 * number
            exim.submit(Message("user@sink.test", f"sender{number % 3}@src.test", size=size))
            time.sleep(TICK)
        ids = exim.queue()
        exim.run("-qff")
        exim.settle()
        exim.run("-Mf", ids[1], ids[2])
        exim.run("-Mes", ids[4], "other@src.test")
        exim.sink.refusals = 0

    def shell(self, place, who, command):
        """(exit status, stdout, stderr) of COMMAND as WHO, with the names of the places taken out."""
        work = self.exim.work / ("work-view" if place == self.view else "work-plain")
        work.mkdir(exist_ok=True)
        work.chmod(0o777)
        user = {"root": None, "owner": "Debian-exim", "member": USER}.get(who, who)
        gid = pwd.getpwnam(user).pw_gid if user else None
        groups = [pwd.getpwnam("Debian-exim").pw_gid] if who == "member" else []
        done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, stdin=subprocess.DEVNULL, timeout=120, cwd="/",
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(work), "LC_ALL": "C.UTF-8", "TZ": "UTC", "S": str(place), "W": str(work),
                                   "GIT_AUTHOR_DATE": "@1 +0000", "GIT_COMMITTER_DATE": "@1 +0000", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"},
                              user=user, group=gid, extra_groups=groups if user else None)
        told = [text.decode(errors="backslashreplace").replace(str(work), "WORK").replace(str(place), "SPOOL") for text in (done.stdout, done.stderr)]
        told = [re.sub(r"(?m)^-frozen \d+$", "-frozen", re.sub(r"/bin/bash: line \d+", "bash", text)) for text in told]
        if command.startswith("mailq") or "exim4 -bp" in command:
            told[0] = re.sub(r"(?m)^ *\d+[mhd] ", "", told[0])     # the age, which changes by itself
        return done.returncode, *told

    def both(self, who, command):
        """Run COMMAND on both sides.  Returns what differs, or None."""
        results = []
        for place in (self.plain, self.view):
            self.use(place)
            outcome = self.shell(place, who, command)
            self.exim.settle()
            results.append((outcome, tree(place / "input"), tree(place / "msglog")))
        (one, *before), (other, *after) = results
        if one != other:
            return f"as {who}: {command}\n    plain: {one}\n    view:  {other}"
        for name, first, second in zip(("input", "msglog"), before, after):
            if difference := unequal(first, second):
                return f"as {who}: {command}: then {name}: {difference}"
        return None


def try_all(exim, commands, main=SPLIT):
    """Run (who, command) on both sides; all that differ are told."""
    sides, wrong = Sides(exim, main), []
    for who, command in commands:
        if difference := sides.both(who, command):
            wrong.append(difference)
    check(not wrong, f"{len(wrong)} of {len(commands)} commands differ:\n  " + "\n  ".join(wrong))
    sides.use(sides.view)
    exim.queued = int(exim.run("-bpc"))
    exim.panic = ".*"


EVERYBODY = ("root", "owner", "member", "nobody")
FIRST = "i=$(ls $S/input/*/*-H | head -1); i=${i##*/}; i=${i%-H}; d=$(echo $S/input/*/$i-D); d=${d%/*};"


# --- third parties ------------------------------------------------------------------------------------------------

@test(main=SPLIT, **VIEW)
def lists(exim):
    """mailq, exim -bp and -bpc, exiqgrep, exipick, exiqsumm and exim_tidydb show what they show of a plain queue."""
    commands = [(who, command) for who in EVERYBODY for command in (
        "mailq", "exim4 -bp", "exim4 -bpc", "exim4 -bpr | sort", "exim4 -bpru | sort", "exiqgrep -c", "exiqgrep -i | sort", "exiqgrep -zi | sort", "exiqgrep -xi | sort", "exiqgrep -f sender1 -i | sort",
        "exiqgrep -r sink.test -i | sort", "exiqgrep -s 4.K -i | sort", "exim4 -bp | exiqsumm", "exipick -i", "exipick -z", "exipick -bpc", "exipick '$sender_address eq sender2@src.test'",
        "exim4 -Mvh $(ls $S/input/*/*-H 2>/dev/null | sed 's,.*/,,;s,-H,,' | head -1)")]
    commands += [(who, FIRST + command) for who in ("root", "owner") for command in (
        "exim4 -Mvh $i", "exim4 -Mvb $i", "exim4 -Mvl $i", "exim4 -Mvc $i", "exigrep x $S/msglog/*/*", "exinext sink.test", "exim4 -bP spool_directory")]
    commands += [(who, command) for who in ("root", "owner", "nobody") for command in (
        "exim_dumpdb $S retry | sed 's/[0-9:]\\{8\\}//g'", "exim_tidydb -t 10000d $S retry", "exim_dumpdb $S retry | wc -l", "exim_fixdb $S retry </dev/null | tail -1 | wc -l")]
    try_all(exim, commands)


@test(main=SPLIT, **VIEW)
def daily_job(exim):
    """cron.daily/exim4-base with its real job keeps the retry records of queued messages, and removes others."""
    job = "/etc/cron.daily/exim4-base"
    if not os.path.exists(job):
        raise Skip(f"no {job}")
    count = "exim_dumpdb $S retry | grep -c T:"
    try_all(exim, [("root", count), ("root", job), ("root", count), ("root", "exim4 -Mrm $(exiqgrep -i | head -3)"), ("root", job), ("root", count),
                   ("owner", f"exim_tidydb $S retry; {count}")])


@test(main=SPLIT, **VIEW)
def acts(exim):
    """What administrators do to messages by Exim's commands and by scripts."""
    try_all(exim, [
        ("root", FIRST + "exim4 -Mf $i; exim4 -bp"), ("root", FIRST + "exim4 -Mt $i; exim4 -bp"), ("root", FIRST + "exim4 -Mar $i x@sink.test; exim4 -Mvh $i"),
        ("root", FIRST + "exim4 -Mmd $i x@sink.test; exim4 -bp"), ("root", FIRST + "exim4 -Mes $i me@sink.test; exim4 -Mvh $i"),
        ("owner", FIRST + "exim4 -Mf $i; exim4 -bp"), ("nobody", FIRST + "exim4 -Mf $i 2>&1 | head -1"), ("nobody", "exim4 -Mrm $(mailq | awk 'NF==4{print $3}')"),
        ("root", FIRST + "sed -i 's/^X-Token: .*/X-Token: changed/' $d/$i-H; exim4 -Mvh $i"), ("root", "exiqgrep -zi | sort | xargs exim4 -Mrm; exim4 -bpc"),
        ("root", "exiqgrep -f sender2 -i | sort | xargs -n1 exim4 -Mrm; exim4 -bpc"), ("root", FIRST + "rm $S/input/*/$i-[DH] $S/msglog/*/$i; exim4 -bpc"),
        ("root", FIRST + "mv $d/$i-D $W/; exim4 -bp; exim4 -Mvb $i; mv $W/$i-D $d/; exim4 -bpc"),
        ("root", FIRST + "chmod 600 $d/$i-D; exim4 -Mvb $i | wc -c"), ("root", FIRST + "touch $d/$i-K; exim4 -bpc; rm $d/$i-K"),
        ("root", FIRST + "printf garbage >$d/$i-H; exim4 -bp; exim4 -Mvh $i"), ("root", "exim4 -Mrm $(ls $S/input/*/*-H | sed 's,.*/,,;s,-H,,'); exim4 -bpc; find $S/input $S/msglog | sort"),
    ])


@test(main=SPLIT, **VIEW)
def moves(exim):
    """Top directories are mounts of their own: mv(1) copies between them; links and Exim's moves fail, and lose nothing."""
    sides = Sides(exim, SPLIT)
    wrong = [sides.both("root", FIRST + "mv $d/$i-D $S/msglog/moved; ls $S/msglog; mv $S/msglog/moved $d/$i-D; exim4 -Mvb $i | wc -c")]
    check(not any(wrong), f"{wrong}")
    sides.use(sides.view)
    before = tree(sides.view / "input"), tree(sides.view / "msglog"), sorted(exim.queue())
    for command in (FIRST + "exim4 -MG slow $i", FIRST + "ln $d/$i-D $S/msglog/l", FIRST + "python3 -c 'import os,sys; os.rename(*sys.argv[1:])' $d/$i-D $S/msglog/r"):
        said = sides.shell(sides.view, "root", command)
        check("Invalid cross-device link" in said[2], f"{command}: {said}")
        after = tree(sides.view / "input"), tree(sides.view / "msglog"), sorted(exim.queue())
        check(after == before and not exim.queue("-qGslow"), f"{command} changed the queue: {unequal(before[0], after[0])}; {unequal(before[1], after[1])}")
    exim.queued = len(before[2])
    exim.panic = "Invalid cross-device link"


@test(main=SPLIT, **VIEW)
def looks(exim):
    """Programs that read the tree: find, du, grep, tar, checksums, perl, python, static busybox, Go."""
    commands = [(who, command) for who in EVERYBODY for command in (
        "find $S/input | sort", "ls -lR --time-style=+ $S/input | grep -v ^total | sed 's/^\\(d.*exim\\) *[0-9]*/\\1/'", "grep -rl Subject $S/input | sort", "du --apparent-size -b $S/input/* | wc -l", "cat $S/input/*/*-D | cksum",
        "head -qc 100 $S/input/*/*-H | cksum", "test -r $S/input; echo $?", "cd $S/input && pwd && ls | sort", "stat -c '%n %A %U %G %s %h %F' $S/input/*/*-D")]
    commands += [("root", command) for command in (
        "find $S/input -name '*-D' -size +3k -newermt 1990-01-01 -printf '%P %s %m %u %n\\n' | sort", "find $S/input -type f -exec md5sum {} + | sed 's/  .*//' | sort", "find $S/input -type f -links 1 | wc -l",
        "find $S/input -depth -type d | wc -l", "md5sum <$(ls $S/input/*/*-D | head -1)", "wc -c <$(ls $S/input/*/*-D | head -1)", "sort $(ls $S/input/*/*-H | head -1) | cksum",
        "diff -r $S/input $S/msglog | wc -l", "tar -C $S -cf - input msglog | tar -tf - | sort", "tar -C $S -cf $W/t.tar input msglog && tar -C $S -df $W/t.tar", "tar --listed-incremental=$W/snar -C $S -czf $W/i.tgz input; tar -tzf $W/i.tgz | sort",
        "cd $S && find input | sort | cpio -o 2>/dev/null | cpio -it 2>/dev/null | sort", "perl -MFile::Find -e 'find({wanted=>sub{push @f,\"$File::Find::name \".(-s $_||0) if -f $_},no_chdir=>1},$ARGV[0]); print join(\"\\n\",sort @f)' $S/input",
        "perl -MFile::Find -e 'find(sub{push @f,$File::Find::name if -f $_},$ARGV[0]); print scalar(@f)' $S/input", "perl -e 'chdir \"$ARGV[0]/input\" or die; print join \" \", sort <*>' $S", "perl -e 'open F,\"<\",(glob \"$ARGV[0]/input/*/*-H\")[0] or die; print scalar(<F>)' $S",
        "python3 -c 'import glob,sys; print(sorted(glob.glob(sys.argv[1]+\"/input/**\",recursive=True)))' $S", "python3 -c 'import pathlib,sys; print(sorted((p.name,p.stat().st_size) for p in pathlib.Path(sys.argv[1]).rglob(\"*-D\")))' $S",
        "python3 -c 'import mmap,glob,sys; f=open(sorted(glob.glob(sys.argv[1]+\"/input/*/*-D\"))[3],\"rb\"); print(mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ,flags=mmap.MAP_PRIVATE).find(b\"original\"))' $S",
        "busybox find $S/input -type f | sort", "busybox ls -l $S/input | wc -l", "busybox du -s $S/input | wc -l", "busybox grep -r Subject $S/input | wc -l", "busybox md5sum $S/input/*/*-D", "busybox tar -C $S -cf - input | busybox tar -tf - | sort",
        "gdu -npa $S/input 2>&1 | grep -c input", "restic version >/dev/null && cd $S && export RESTIC_PASSWORD=x && restic -q init -r $W/r && restic -q backup -r $W/r input && restic -q restore latest -r $W/r --target $W/out && diff -r input $W/out/input && echo same",
        "ls $S/input | head -1 | tr A-Za-z x", "ls -di $S/input/. | awk '{print NF}'", "realpath $S/input/../input", "cd $S/input && cd .. && pwd", "test $S/input -ef $S/input/.; echo $?", "file -b $(ls $S/input/*/*-H | head -1) | wc -l",
        "strings $(ls $S/input/*/*-D | head -1) | wc -l", "xargs -a <(ls -d $S/input/*) -n1 basename | sort", "cmp $(ls $S/input/*/*-H | head -1) $(ls $S/input/*/*-H | head -1); echo $?", "mountpoint -q $S/nothing; echo $?",
        "dd if=$(ls $S/input/*/*-D | head -1) bs=7 skip=1 count=3 2>/dev/null | od -c", "tail -c 20 $(ls $S/input/*/*-D | head -1) | od -c", "lsof $S/input/*/*-D 2>/dev/null; fuser $S/input/*/*-D 2>/dev/null; echo", "getfattr -d $S/input 2>/dev/null; echo",
        "getfacl -c $S/input 2>/dev/null | head -3", "df $S/input >/dev/null; echo $?", "stat -f -c %l $S/input", "namei -m $S/input | tail -1")]
    try_all(exim, commands)


@test(main=SPLIT, **VIEW)
def writes(exim):
    """Programs that write: cp -a, mv, rsync both ways, tar, git, sqlite3, redirections, editors' ways, python's shutil."""
    same = "&& diff -r $S/input $W/input && echo same"
    commands = [("root", command) for command in (
        f"cp -a $S/input $W/ {same}", "cd $W && find input -printf '%P %m %u %g %s %T@\\n' | cksum", "cp -a $W/input $S/input/copy && diff -r $W/input $S/input/copy && find $S/input/copy -printf '%P %m %u %g %T@\\n' | sort | cksum",
        "cp -al $S/input/copy $S/input/linked && find $S/input/linked -type f -links 2 | wc -l", "rm -rf $S/input/linked; find $S/input/copy -type f -links 1 | wc -l", "mv $S/input/copy $S/input/moved && ls $S/input/moved | wc -l",
        "mv $S/input/moved $W/out && ls $W/out | wc -l", "mv $W/out $S/input/back && diff -r $W/input $S/input/back && echo same", "mv -n $S/input/back/* $S/input/ 2>&1 | wc -l", "mv -T $S/input/back $S/input/back2; ls $S/input | wc -l",
        "rm -r $W/input; rsync -a $S/input $W/ " + same, "rsync -a --delete $W/input/ $S/input/r/ && diff -r $W/input $S/input/r && echo same", "rsync -ai --delete $W/input/ $S/input/r/", "echo x >>$(ls $W/input/*/*-D | head -1); rsync -aic --delete $W/input/ $S/input/r/ | wc -l",
        "rsync -a --inplace --append-verify $W/input/ $S/input/r/; diff -r $W/input $S/input/r && echo same", "rsync -a --link-dest=$S/input/r $W/input/ $S/input/r2/ && find $S/input/r2 -type f -links 2 | wc -l", "rsync -a --remove-source-files $S/input/r2/ $W/r2/ && find $S/input/r2 -type f | wc -l; rm -r $S/input/r2",
        "rsync -aAX $S/input/ $W/ax/ && ls $W/ax | wc -l", "tar -C $S/input -cf - r | tar -C $W -xf - && diff -r $S/input/r $W/r && echo same", "mkdir $S/input/t && tar -C $W -cf - r | tar -C $S/input/t -xpf - && diff -r $W/r $S/input/t/r && diff <(cd $W && find r -printf '%p %m %u %Ts\\n' | sort) <(cd $S/input/t && find r -printf '%p %m %u %Ts\\n' | sort) && echo same", "rm -rf $S/input/r $S/input/t; ls $S/input | wc -l",
        "cd $S/input && echo one >f && echo two >>f && cat f && echo three >|f && cat <f && exec 5<>f && read l <&5 && echo $l && rm f", "cd $S/input && seq 1000 >n && sort -rn n -o n && head -1 n && tac n >n2 && wc -l <n2 && sed -i 5d n2 && wc -l <n2 && perl -pi -e 's/9/x/' n && head -1 n && rm n n2",
        "cd $S/input && (echo a; echo b >&2) >o 2>&1; cat o; cat >h <<E\nhere\nE\ncat h; tee t1 t2 <h >/dev/null; cmp t1 t2 && rm o h t1 t2", "cd $S/input && set -o noclobber; echo x >c; echo y >c; rm c", "cd $S/input && mkdir -p a/b/c && rmdir -p a/b/c && ls -d a; mktemp -p . XXXX | wc -c; rm -f ./????",
        "cd $S/input && install -m 640 -o Debian-exim /etc/hostname inst && stat -c '%a %U' inst && truncate -s 100000 inst && stat -c %s inst && fallocate -l 200000 inst; stat -c %s inst; shred -u inst; ls inst", "cd $S/input && touch -d 2001-02-03 old && stat -c %Y old && touch -r old new && find . -maxdepth 1 ! -newer old -name new && rm old new",
        "cd $S/input && umask 027 && (umask 077; echo >u1) && echo >u2 && mkdir u3 && stat -c '%n %a' u? && rm -r u?", "cd $S/input && flock lk -c 'flock -n lk true; echo $?' && rm lk", "cd $S/input && dd if=/dev/urandom of=big bs=1M count=8 conv=fsync 2>/dev/null && cp big big2 && cmp big big2 && cp --reflink=auto --sparse=always big big3 && cmp big big3 && echo same; rm big*",
        "cd $S/input && split -n 3 $(ls */*-D | head -1) part. && cat part.* | cmp - $(ls */*-D | head -1) && rm part.*; ls part* 2>/dev/null | wc -l", "cd $S/input && gzip -k $(ls */*-D | head -1) && gunzip -c */*-D.gz | cksum; rm */*-D.gz", "cd $S/input && ed -s $(ls */*-H | head -1) <<<$'1p\\nw\\nq' 2>&1 | head -1 | wc -l",
        "cd $S/input && mkdir g && cd g && git init -q . && cp ../*/*-H . && git add . && git -c user.name=x -c user.email=x@x commit -qm one && git status --short && echo change >>$(ls *-H | head -1) && git diff --stat | tail -1 && git gc -q && git fsck 2>&1 && git checkout -q . && git log --oneline | wc -l",
        "cd $S/input && git clone -q g g2 2>&1; ls g2 | wc -l; rm -rf g g2; ls | wc -l",
        "cd $S/input && sqlite3 q.db 'create table t(a,b); begin; insert into t values(1,2); commit; select * from t;' && for i in 1 2 3 4; do (for j in $(seq 25); do sqlite3 -cmd '.timeout 20000' q.db \"insert into t values($i,$j)\"; done) & done; wait; sqlite3 q.db 'select count(*) from t; pragma integrity_check;'; rm q.db*",
        "cd $S/input && sqlite3 w.db 'pragma journal_mode=truncate; create table t(a); insert into t values(1); vacuum; select count(*) from t'; rm -f w.db*",
        "python3 -c 'import shutil,sys,os; s,w=sys.argv[1:]; shutil.copytree(s+\"/input\",w+\"/py\"); shutil.copytree(w+\"/py\",s+\"/input/py\"); shutil.move(s+\"/input/py\",s+\"/input/py2\"); print(len(os.listdir(s+\"/input/py2\"))); shutil.make_archive(w+\"/arch\",\"tar\",s,\"input\"); shutil.rmtree(s+\"/input/py2\"); print(len(os.listdir(s+\"/input\")))' $S $W",
        "python3 -c 'import tempfile,sys; f=tempfile.NamedTemporaryFile(dir=sys.argv[1]+\"/input\"); f.write(b\"x\"*100000); f.flush(); print(open(f.name).read()[-3:]); g=tempfile.TemporaryFile(dir=sys.argv[1]+\"/input\"); g.write(b\"y\"); g.seek(0); print(g.read())' $S",
        "perl -e 'use Fcntl qw(:flock :seek); open F,\"+>\",\"$ARGV[0]/input/p\" or die; flock F,LOCK_EX or die; print F \"line\\n\" x 3; seek F,0,SEEK_SET; @l=<F>; print scalar(@l); truncate F,0; close F; print -s \"$ARGV[0]/input/p\" || 0; unlink \"$ARGV[0]/input/p\"' $S",
        "busybox cp -a $S/input $W/bb && busybox cp -a $W/bb $S/input/bb && busybox diff -r $W/bb $S/input/bb && busybox mv $S/input/bb $S/input/bb2 && busybox sed -i s/x/y/ $S/input/bb2/*/*-H && busybox rm -r $S/input/bb2; ls $S/input | wc -l")]
    commands += [(who, command) for who in ("owner", "member", "nobody") for command in (
        "echo x >$S/input/new; echo $?; rm -f $S/input/new", "touch $(ls $S/input/*/*-D 2>/dev/null | head -1)", "cp $S/input/*/*-H $W/ 2>&1 | wc -l", "mkdir $S/input/d && stat -c '%U %G %a' $S/input/d; rmdir $S/input/d", "rm -f $S/input/*/nothing; echo $?", "chmod 666 $(ls $S/input/*/*-D 2>/dev/null | head -1); chmod 640 $(ls $S/input/*/*-D 2>/dev/null | head -1)")]
    try_all(exim, commands)


@test(main=QUEUE_ONLY, **VIEW)
def inotify(exim):
    """inotifywait tells of what goes through the view."""
    exim.mount_view()
    watch = subprocess.Popen(["inotifywait", "-m", "-r", "--format", "%e %f", str(exim.spool / "input")],
                             stdout=open(exim.work / "events", "wb"), stderr=subprocess.PIPE)
    while b"established" not in watch.stderr.readline():
        check(watch.poll() is None, "inotifywait has ended")
    message = exim.expect(Message(), "sink")
    exim.submit(message)
    exim.deliver_queue()
    for wanted in ("CREATE", "MODIFY", "MOVED_TO", "DELETE", "-D", "-H"):
        wait_for(lambda: wanted in (exim.work / "events").read_text(), f"{wanted} is among the events")
    watch.terminate()
    watch.communicate()


# --- two ways in at once ------------------------------------------------------------------------------------------

@test(main=SPLIT, view="mixed")
def mixed(exim):
    """The daemon with the library, sendmail of a user, a runner, rm, and an editor without: one queue."""
    exim.start()
    client = Client()
    first = exim.expect(Message(), "sink")
    check(client.send(first)[0] == 250, "not accepted")
    second = exim.expect(Message("user@maildir.test"), "maildir")
    exim.submit(second, user="nobody")
    names = exim.queue()
    served = exim.command("-bpc", environment={"LD_PRELOAD": LIBRARY}).stdout
    check(len(names) == 2 and int(served) == 2, f"without the library {names}, with it {served!r}")
    third = Message()
    check(client.send(third)[0] == 250, "not accepted")
    name, = set(exim.queue()) - set(names)
    for path in [*exim.spool.glob(f"input/*/{name}-*"), *exim.spool.glob(f"msglog/*/{name}")]:
        path.unlink()
    check(sorted(exim.queue()) == sorted(names), "rm didn't remove a message")
    header, = exim.spool.glob(f"input/*/{names[0]}-H")
    text = header.read_bytes()
    header.write_bytes(text)                # as an editor does that writes in place
    said = exim.command("-Mvh", names[0], environment={"LD_PRELOAD": LIBRARY}).stdout
    check(said == exim.run("-Mvh", names[0]), "the library and the view show different headers")
    exim.deliver_queue()
    for _ in range(20):
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    client.close()
    subprocess.run(["find", exim.spool / "input", "-type", "f", "-exec", "cat", "{}", "+"], check=True, stdout=subprocess.DEVNULL)
    exim.deliver_queue()


@test(main=QUEUE_ONLY + ("acl_smtp_mail = accept queue = slow",), **VIEW)
def queue_made_later(exim):
    """A named queue that Exim makes while the view is mounted is the view's, too."""
    exim.start()
    client = Client()
    for _ in range(3):
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    client.close()
    wait_for(lambda: is_view(exim.spool / "slow" / "input"), "the named queue is in the view")
    exim.wait_queued(3, "slow")
    exim.run("-qffGslow")
    exim.wait_arrived()
    wait_for(lambda: not exim.queue("-qGslow"), "the named queue is empty")


@test(main=SPLIT, **VIEW)
def imported(exim):
    """What lay on the disk is in the store when the view is mounted; what is locked comes when its lock is gone."""
    exim.with_view = None                   # not yet
    messages = [exim.expect(Message(), "sink") for _ in range(5)]
    for message in messages:
        exim.submit(message)
    names = exim.queue()
    before = tree(exim.spool / "input")
    locked, = exim.spool.glob(f"input/*/{names[2]}-D")
    holder = subprocess.Popen(["python3", "-c", "import fcntl,sys,time; f=open(sys.argv[1],'r+b'); fcntl.lockf(f,fcntl.LOCK_EX,int(sys.argv[2])); print('x',flush=True); time.sleep(2)",
                               str(locked), str(len(names[2]) + 3)], stdout=subprocess.PIPE)
    holder.stdout.read(2)
    exim.with_view = "stock"
    exim.fastspool_configuration(f"memory = {exim.memory}")
    exim.mount_view()
    wait_for(lambda: sorted(exim.queue()) == sorted(names), "all messages are in the view")
    wait_for(lambda: tree(exim.spool / "input") == before, "the tree is as it was")
    check(exim.command("-bpc", environment={"LD_PRELOAD": LIBRARY}).stdout.strip() == b"5", "the library sees other messages")
    exim.deliver_queue()


# --- death --------------------------------------------------------------------------------------------------------

def fill(exim, count=MANY):
    """COUNT messages in the queue, and as the daemon accepts them: by the library or by the view."""
    exim.start()
    client = Client()
    for _ in range(count):
        check(client.send(Message(size=500), pipelining=True)[0] == 250, "not accepted")
    client.close()
    exim.queued = count


def close_anyway(fd):
    """close(2) of a descriptor whose server is dead tells so, and closes it."""
    try:
        os.close(fd)
    except OSError:
        pass


def looked(exim):
    """How many -D files find counts, or None if it fails."""
    done = subprocess.run(["find", exim.spool / "input", "-name", "*-D"], capture_output=True)
    return None if done.returncode else len(done.stdout.splitlines())


def watch_death(exim, end):
    """Call END, which ends the server's answers.  Until the view is back, whoever looks gets an error or the whole queue,
    and the daemon, which has the library, takes mail.  Returns the seconds until it is back."""
    counts, answers, over = [], [], threading.Event()

    def look():
        while not over.is_set():
            counts.append(looked(exim))

    def send():
        client = Client()
        while not over.is_set():
            began = time.monotonic()
            answers.append((client.send(Message(size=300))[0], time.monotonic() - began))
        client.close()
    threads = [threading.Thread(target=look, daemon=True)] + ([threading.Thread(target=send, daemon=True)] if exim.with_view == "mixed" else [])
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    old = exim.view.server()
    check(old, "the view has no server")
    began = time.monotonic()
    end(old)
    wait_for(lambda: exim.view.server() not in (None, old) and looked(exim) is not None, "the view is mounted again")
    took = time.monotonic() - began
    time.sleep(0.3)
    over.set()
    for thread in threads:
        thread.join(60)
        check(not thread.is_alive(), "somebody hangs")
    exim.queued += len(answers)
    wrong = [count for count in counts if count is not None and count < MANY]
    check(not wrong, f"find saw {wrong[:5]} of {MANY} messages")
    check(all(code == 250 for code, _ in answers), "the daemon refused mail")
    slow = max((spent for _, spent in answers), default=0)
    check(slow < 4, f"the daemon answered after {slow:.1f} s")      # a server that doesn't answer is killed after five
    print(f"  back after {took:.1f} s; {counts.count(None)} of {len(counts)} looks failed, {len(answers)} messages accepted meanwhile", flush=True)
    check(int(exim.run("-bpc")) == exim.queued, f"{exim.run('-bpc')} messages, expected {exim.queued}")
    return took


@test(("", {}), main=SPLIT, view="mixed")
def server_killed(exim):
    """kill -9 of the view's server: the daemon goes on, others get an error, never an empty directory; it is back soon."""
    fill(exim)
    for _ in range(3):
        check(watch_death(exim, kill) < 8, "the view came back too late")      # the longest pause before a start


@test(main=SPLIT, view="mixed")
def server_stopped(exim):
    """A server that hangs (SIGSTOP) is killed by the watchdog."""
    fill(exim)
    watch_death(exim, suspend)


@test(main=SPLIT, view="mixed")
def supervisor_killed(exim):
    """kill -9 of the supervisor, and of all at once: the next start mounts again, and nothing is lost."""
    fill(exim)
    server = exim.view.server()
    kill(exim.view.process.pid)
    exim.view.process.wait()
    wait_for(lambda: server not in dict(processes()), "the server ends with its supervisor")
    check(looked(exim) in (None, MANY), f"find sees {looked(exim)} messages")
    exim.view = None
    exim.mount_view()
    check(looked(exim) == MANY and int(exim.run("-bpc")) == MANY, "the queue is not as it was")
    exim.reboot()
    check(int(exim.run("-bpc")) == MANY, "the queue is not as it was after a reboot")


@test(main=SPLIT, **VIEW)
def open_at_death(exim):
    """Descriptors of a dead server give errors; a working directory in the view does not hold up its successor."""
    fill(exim, 10)
    path = next(exim.spool.glob("input/*/*-D"))
    fd = os.open(path, os.O_RDWR)
    sitter = subprocess.Popen(["sleep", "100"], cwd=exim.spool / "input")
    old = exim.view.server()
    kill(old)
    wait_for(lambda: exim.view.server() not in (None, old) and looked(exim) == 10, "the view is mounted again")
    for what in (lambda: os.read(fd, 1), lambda: os.write(fd, b"x"), lambda: os.fstat(fd), lambda: os.stat(f"/proc/{sitter.pid}/cwd/x")):
        try:
            what()
            check(False, "a descriptor of a dead server works")
        except OSError as error:
            check(error.errno in (107, 5, 103, 2), f"errno {error.errno}")
    close_anyway(fd)
    sitter.kill()
    sitter.wait()
    check(path.read_bytes().startswith(path.name.encode()), "the file is not as it was")


@test(main=SPLIT, **VIEW)
def stop_while_used(exim):
    """fastspool stop unmounts, lazily where somebody sits; afterwards the disk's directory is seen, and nothing lies there."""
    fill(exim, 10)
    exim.stop()
    sitter = subprocess.Popen(["sleep", "100"], cwd=exim.spool / "input")
    held = os.open(next(exim.spool.glob("input/*/*-D")), os.O_RDONLY)
    began = time.monotonic()
    exim.unmount_view()
    check(time.monotonic() - began < 30, "stop took too long")     # half of its patience
    check(not is_view(exim.spool / "input") and not is_view(exim.spool / "msglog"), "the view is still there")
    check(not exim.real_files(), f"on the disk are {exim.real_files()}")
    sitter.kill()
    sitter.wait()
    close_anyway(held)
    exim.mount_view()
    check(len(exim.queue()) == 10, "the queue is not as it was")


@test(main=QUEUE_ONLY, view=None)
def fresh(exim):
    """`fastspool view` of a spool that nobody has used yet, an empty directory, mounts it; Exim uses it at once."""
    exim.fastspool_configuration(f"memory = {exim.memory}", "view = auto")
    exim.stock = True
    exim.view = View(exim.spool, open(exim.work / "view.out", "ab")).start(prepared=False)
    check(not exim.queue(), "there are messages")
    exim.start()
    client = Client()
    check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
    client.close()
    check(len(exim.queue()) == 1, "the message is not in the queue")
    about = os.stat(exim.spool / "input")
    check(stat.S_IMODE(about.st_mode) == 0o750 and about.st_uid == exim.spool.stat().st_uid, f"input is {about}")
    exim.deliver_queue()


@test(("_off", {}), ("_no_device", {}), main=QUEUE_ONLY, library=True, view=None)
def no_view(exim):
    """Without /dev/fuse, or with `view = off`, everything is as before.  Without /dev/fuse `fastspool view` says so in one
    line; `off` is for a service of the view, too."""
    if "no_device" in str(exim.work):
        exim.fastspool_configuration(f"memory = {exim.memory}", "view = auto")
        subprocess.run(["mount", "--bind", "/dev/null", "/dev/fuse"], check=True)
    try:
        exim.start()
        client = Client()
        for _ in range(3):
            check(client.send(exim.expect(Message(), "sink"))[0] == 250, "not accepted")
        client.close()
        check(not is_view(exim.spool / "input"), "there is a view")
        check(not exim.real_files(), f"on the disk are {exim.real_files()}")
        if "no_device" in str(exim.work):
            done = subprocess.run(["timeout", "60", "fastspool", "view", str(exim.spool)], capture_output=True, text=True)
            check(done.returncode not in (0, 124) and len(done.stderr.splitlines()) == 1, f"fastspool view says {done}")
        else:
            done = subprocess.run(["timeout", "60", "fastspool", "view", str(exim.spool)], capture_output=True, text=True)
            check(done.returncode == 69 and "`view = off`" in done.stderr, f"fastspool view says {done}")
            check(len(exim.queue()) == 3, "the queue has lost a message")
        why = "as no view can be mounted here" if "no_device" in str(exim.work) else "as `view = off`"
        told = exim.tool("stop")
        check(f"3 messages stay in the store: programs without the library do not see them, {why}; " in told, told)
        exim.deliver_queue()
    finally:
        if "no_device" in str(exim.work):
            subprocess.run(["umount", "/dev/fuse"])


if __name__ == "__main__":
    main("view")
