/* SPDX-License-Identifier: MIT
 *
 * Serving: whether this process is served, which spool, and the attachment.
 *
 * Happy path:
 *   - Loading decides nothing.
 *   - The first call on a path decides, by the running image, the configuration, and whether the program's children
 *     will load the same library.
 *   - The first call on a path of a spool attaches that one.  A process may use several: each has its own attachment,
 *     and they are like different file systems.
 *
 * Which process is served:
 *   - The fastspool command: never.
 *   - An ordinary image: always.  FASTSPOOL_* are believed.
 *   - A set-user-ID image (Exim) that root started, without secure execution: only if its re-executions, which are
 *     secure, will load the library and see the same spool.  So the environment is not believed, and the installation
 *     is checked.  If that fails, one line says why, and neither this process nor its children are served: never two
 *     spools.
 *   - Secure execution: only an image that the configuration names, which root owns.  No variable has any effect.
 *     Spools are the configured ones and those that root registered.
 *
 *   - A process that an ordinary user started: never (`users`).  He could stop it, or hold it up, inside the store,
 *     and with it all mail.  It takes the view, or the disk where there is none; Exim then passes by message.  So does
 *     what it executes: Exim's own re-executions are root's or the mail user's by their uids, but bear a mark.
 *   - With a view (spool/viewed.h) only the MTA's images and programs that link the library.  It is asked where the
 *     process decides, and nowhere else: a process that has attached before the view was mounted stays.
 *
 * Failure modes.  No process takes an empty directory for the spool: what can't be known, or can't be had, is EIO
 * (EACCES for a user without permission), with one line on standard error and in syslog at the first such call.
 *   - Another library stands before this one (ahead.c): one line.  Where it makes fsync a lie, EIO.
 *   - The configuration can't be read, believed or understood.  Where there is a view, the process uses that.
 *   - The store can't be attached.
 *   - A set-user-ID image that the configuration doesn't name looks into a spool.  So its paths are looked at, and
 *     nothing else (REFUSE).
 *   - The configuration doesn't name a spool that has a state directory, to a set-user-ID image or where it can't be
 *     understood: match_unnamed().  Without its name its owner looks like an ordinary user, whose own spools are
 *     watched for that (WATCH).
 *   - What a refused call finds is looked at again, once a second at most: what an operator has mended counts without a
 *     restart (mend()).  A refused process has used nothing, neither store nor disk, so it can't mix them.  One whose
 *     spool was unknown, and had no store, has used the disk: it is not served any more.
 *   - Exim asks for a listing, and would take the error for an empty queue: its process ends (serve_end_listing()).
 */
#include "serve.h"

#include "ahead.h"
#include "attachment.h"
#include "base/atomic.h"
#include "base/cgroup.h"
#include "base/clock.h"
#include "base/decision.h"
#include "base/fd.h"
#include "base/places.h"
#include "config.h"
#include "fastspool.h"
#include "forks.h"
#include "image.h"
#include "signals.h"
#include "spool/configuration.h"
#include "spool/exim.h"
#include "spool/registry.h"
#include "spool/runtime.h"
#include "spool/viewed.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/single_threaded.h>
#include <sysexits.h>
#include <syslog.h>

#define AGAIN   NS_PER_S             /* after which a cause may have been mended */
#define UNNAMED FASTSPOOL_SPOOLS_MAX /* as `matched`: of no configured spool, but there is a store */

/* By the number of a spool that is registered.  (Of these variables the first is the last one in memory, and this one
 * is large, and mostly empty: so those of all processes are not on both sides of it.) */
static struct fastspool_config registered[FASTSPOOL_SPOOLS_MAX];

static struct spool {
    char given[FASTSPOOL_PATH_MAX]; /* as configured */
    size_t plain;                   /* its length, if a path that begins like it is one below it; 0: see plain() */
    char real[FASTSPOOL_PATH_MAX];  /* its real path, "" where it is the same */
    bool registered;                /* by root: it has a configuration of its own */
    uint32_t failed;                /* errno of calls on it, after attaching has failed; */
    uint64_t again;                 /* until then, on clock_monotonic() */
    char said[FASTSPOOL_ERROR_MAX]; /* why it has failed the last time */
} spools[FASTSPOOL_SPOOLS_MAX];
static size_t spool_count;

static struct decision_word word __attribute__((used)) = {.mark = DECISION_MARK};
static uint32_t users; /* an ordinary user started this process */
static struct fastspool_config config;
static bool links;      /* the image needs the library itself */
static bool by_preload; /* without /etc/ld.so.preload it would be LD_PRELOAD that brought it */
static uint32_t left;   /* the process has left all spools: calls on them are EACCES */
static bool final;      /* nothing that can be mended will have this process served */
static uint32_t passed; /* a path like one below a spool went to the disk, as nobody had named that spool */
static uint32_t told;   /* the line about `refusal`, or about an unnamed spool, has been said */
static bool listens;    /* a daemon, or its child */
static bool set_id_image;
static uid_t starter;                     /* the real uid that the process was started with: Exim takes root's */
static char refusal[FASTSPOOL_ERROR_MAX]; /* why every call on a spool fails; "": no reason */
static uint64_t decided_at;               /* the last time, on clock_monotonic() */
static __thread bool nameless;  /* by find_match(): the path is like one below a spool that nobody has named */
static __thread bool matching;  /* this thread reads `spools`, and a handler may interrupt it */
static __thread size_t matched; /* by serve_match(), for serve_store(): the spool found last */
static struct stat own_image;   /* of this program */
static bool by_proc;            /* as /proc/self/exe says */
/* The spool that nobody has named.  (First in memory, where a page begins: else what each process writes of all these
 * would be in one page more.) */
static __attribute__((aligned(4096))) char unnamed[FASTSPOOL_PATH_MAX];

/* ---- messages ---- */

/* One line: "fastspool: WHAT: WHY". */
static void say(const char *what, const char *why)
{
    char line[FASTSPOOL_ERROR_MAX + FASTSPOOL_PATH_MAX + 64];
    int length = snprintf(line, sizeof(line) - 1, "fastspool: %s: %s", what, why);

    if (length >= (int)sizeof(line) - 1)
        length = (int)sizeof(line) - 2;
    syslog(LOG_MAIL | LOG_ERR, "%s", line);
    line[length] = '\n';
    ssize_t ignored = real.write(STDERR_FILENO, line, (size_t)length + 1);
    (void)ignored;
}

/* @error without @spool in front, which say() puts there. */
static const char *behind_name(const char *error, const char *spool)
{
    size_t length = strlen(spool);

    return strncmp(error, spool, length) == 0 && strncmp(error + length, ": ", 2) == 0 ? error + length + 2 : error;
}

/* Every call on a spool fails from now on.  The first reason counts. */
static __attribute__((format(printf, 1, 2))) void refuse(const char *format, ...)
{
    va_list arguments;

    if (refusal[0])
        return;
    va_start(arguments, format);
    vsnprintf(refusal, sizeof(refusal), format, arguments);
    va_end(arguments);
}

/* ---- the decision ---- */

static const struct fastspool_config *config_of(const struct spool *spool)
{
    return spool->registered ? &registered[spool - spools] : &config;
}

/* The length of the spool's path, 0: it has "//" or a hidden directory in it, or one that Exim has in its spool. */
static size_t plain(const char *path)
{
    size_t length = strlen(path);
    return strstr(path, "//") || strstr(path, "/.") || path[length - 1] == '/' || exim_telling(path) ? 0 : length;
}

/* @own: the configuration of one that root has registered, NULL: it has the common one. */
static void add_spool(const char *path, const struct fastspool_config *own)
{
    struct spool *spool = &spools[spool_count];
    bool known = spool_count == FASTSPOOL_SPOOLS_MAX;

    for (size_t i = 0; i < spool_count && !known; i++)
        known = strcmp(spools[i].given, path) == 0;
    if (known)
        return;
    *spool = (struct spool){.registered = own};
    strcpy(spool->given, path);
    spool->plain = plain(path);
    if (own)
        registered[spool_count] = *own; /* not all of them at once: they have 35 pages */
    int fd = real.open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        if (fd_path(fd, path, spool->real, sizeof(spool->real)) < 0)
            spool->real[0] = '\0';
        real.close(fd);
    }
    spool_count++;
}

/* The spool that the registry's file @path is of, if it is of one.  0, or -errno: it can't be said.  (Not inlined
 * because of the configuration: three pages of stack, which most processes need not touch.) */
static __attribute__((noinline)) int add_registered_by(const char *path)
{
    struct fastspool_config found;
    int result = registry_read(path, &found);

    if (result > 0) {
        memcpy(found.trusted_user, config.trusted_user, sizeof(found.trusted_user));
        found.trusted_users = config.trusted_users; /* the registry knows of none */
        add_spool(found.spool[0], &found);
    }
    return result > 0 ? 0 : result;
}

/* Is @path the registry's file of a spool that is known already, as the configuration names it?  It says nothing new,
 * so it is not read: six calls, and three pages of the stack. */
static bool is_of_known(const char *path)
{
    char own[PLACES_PATH_MAX];
    bool known = false;

    for (size_t i = 0; i < spool_count && !known; i++) {
        places_registered(spools[i].given, strlen(spools[i].given), own);
        known = strcmp(own, path) == 0;
    }
    return known;
}

/* The next entries of the registry into @entries: how many bytes, 0: there are no more, or -errno. */
static ssize_t read_registry(int fd, void *entries, size_t size)
{
    ssize_t got = real.getdents64(fd, entries, size);
    return got < 0 ? -errno : got;
}

/* Spools that root registered.  Without opendir(3), whose buffer of 32 kB would move the program's heap. */
static void add_registered(void)
{
    _Alignas(struct dirent) char entries[1024];
    int fd = real.open(PLACES_REGISTRY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read_registry(fd, entries, sizeof(entries));
    int result = fd >= 0 || errno == ENOENT ? 0 : -errno;

    while (got > 0 && result == 0) {
        for (ssize_t at = 0; at < got && result == 0;) {
            const struct dirent *entry = (const struct dirent *)&entries[at];
            char path[300];
            snprintf(path, sizeof(path), PLACES_REGISTRY "/%s", entry->d_name);
            if (entry->d_type != DT_DIR && entry->d_name[0] != '.' && !is_of_known(path))
                result = add_registered_by(path);
            at += entry->d_reclen;
        }
        got = read_registry(fd, entries, sizeof(entries));
    }
    if (got < 0)
        result = (int)got;
    if (fd >= 0)
        real.close(fd);
    if (result < 0)
        refuse("can't look into " PLACES_REGISTRY ", where root registers spools: %s; %s", strerrordesc_np(-result),
               result == -ENOTDIR ? "move that away" : "give this process more descriptors");
}

/* Re-executions can't see a spool that only the environment names. */
static const char *environment_problem(void)
{
    const char *chosen = getenv("FASTSPOOL_SPOOL");

    if (!chosen)
        return NULL;
    for (size_t i = 0; i < spool_count; i++) {
        if (strcmp(spools[i].given, chosen) == 0 || strcmp(spools[i].real, chosen) == 0)
            return NULL;
    }
    return "the spool that FASTSPOOL_SPOOL names is neither in " FASTSPOOL_CONFIG
           " nor registered by root (fastspool run --spool), so Exim's own re-executions would not see it";
}

/* May this user keep the store mapped, besides root and the owner? */
static bool is_trusted_user(uid_t uid)
{
    for (size_t i = 0; i < config.trusted_users; i++) {
        if (config.trusted_user[i] == uid)
            return true;
    }
    return false;
}

/* May a process that this user started serve itself?  Root, a trusted user, and who owns every configured spool: the
 * process may come to any of them.  Who owns one that root has registered may be anybody. */
static bool is_trusted(uid_t uid)
{
    size_t count = config.spools ? config.spools : spool_count, own = 0, others = 0;
    struct stat spool;

    if (uid == 0 || is_trusted_user(uid))
        return true;
    for (size_t i = 0; i < count && i < spool_count; i++) {
        bool there = real.stat(spools[i].given, &spool) == 0;
        own += there && spool.st_uid == uid;
        others += there && spool.st_uid != uid;
    }
    return own && !others;
}

/* Is this process in a control group that an ordinary user may freeze?  The MTA, and who asked for the library, is
 * told: root has started it in his session. */
static bool in_users_group(void)
{
    size_t length;
    int is = cgroup_is_users(is_trusted);

    if (is < 0)
        refuse(
            "can't look at the control groups of this process: %s; give it more descriptors, and let it see "
            "/sys/fs/cgroup",
            strerrordesc_np(-is));
    if (is <= 0)
        return false;
    if (image_is_program(&config, &own_image) || image_preload(&length))
        say("serves nothing",
            "this process runs in a control group that an ordinary user may freeze: start Exim as a service");
    return true;
}

/* Without asking the view's server where the process may serve itself. */
static bool passes_to_view(bool serves_itself)
{
    if (!refusal[0] && serves_itself)
        return false;
    for (size_t i = 0; i < spool_count; i++) {
        int is = viewed(spools[i].given);
        if (is < 0)
            refuse("can't look whether %s has a view: %s; give this process more descriptors, or /proc",
                   spools[i].given, strerrordesc_np(-is));
        if (is > 0)
            return true;
    }
    return false;
}

/* Why this set-user-ID image, which root started, is not served, NULL: no reason. */
static const char *preload_problem(void)
{
    size_t length;
    const char *entry = image_preload(&length), *problem = environment_problem();

    if (problem || !entry)
        return problem;
    if (memchr(entry, '/', length))
        return "LD_PRELOAD has a path with slashes, which Exim's own re-executions ignore: say "
               "LD_PRELOAD=" IMAGE_LIBRARY;
    return image_installation_problem();
}

/* What stands before the library is said.  Where it makes fsync a lie, every call on the spool fails. */
static void look_ahead(void)
{
    char text[FASTSPOOL_ERROR_MAX];
    bool lies = ahead_lies(text, sizeof(text));

    final = final || lies;
    if (*text)
        say(lies ? "refuses every call on the spool" : "serves", text);
    if (lies && !refusal[0]) {
        refuse("%s", text);
        STORE(told, 1);
    }
}

static void refuse_unlisted(void)
{
    char path[PATH_MAX];

    image_path(path);
    refuse("%s is set-user-ID, and no `program` in " FASTSPOOL_CONFIG " names it: if it is your Exim, say so there",
           path);
}

/* Of an image that runs with more rights than its caller may have. */
static enum decision decide_set_id(bool listed)
{
    const char *problem = getauxval(AT_SECURE) ? NULL : preload_problem();
    final = final || problem; /* Exim cleans its environment, so this is asked once */
    if (!listed)
        refuse_unlisted();
    if (refusal[0])
        return listed ? SERVE : REFUSE;
    if (!problem)
        return SERVE;
    say("serves nothing", problem);
    return SERVE_NOTHING;
}

/* Exim may have given up root's rights when it comes to the spool: `exim -bp` has. */
static void prepare_memory(void)
{
    for (size_t i = 0; i < spool_count; i++) {
        const struct fastspool_config *own = config_of(&spools[i]);
        if (!own->runtime[0])
            runtime_prepare_ahead(spools[i].real[0] ? spools[i].real : spools[i].given, own->memory);
    }
}

/* The configuration, and the spools. */
static void load(bool environment)
{
    char error[FASTSPOOL_ERROR_MAX];

    decided_at = clock_monotonic();
    if (!attachment_any())
        spool_count = 0;
    if (configuration_read(&config, NULL, environment, error) < 0)
        refuse("%s", error);
    for (size_t i = 0; i < config.spools; i++)
        add_spool(config.spool[i], NULL);
    if (set_id_image)
        add_registered();
}

static enum decision decide(void)
{
    bool secure = getauxval(AT_SECURE) != 0;
    size_t length;

    links = image_links();

    if (!image_find(&own_image, &by_proc)) {
        final = true;
        refuse(
            "/proc, which says what program this is, can't be read, and the program was not executed by an absolute "
            "path; mount /proc");
        set_id_image = true;
        return REFUSE;
    }
    set_id_image = own_image.st_mode & (S_ISUID | S_ISGID);
    if (!set_id_image && image_is_tool(&own_image)) /* that has no such bit */
        return SERVE_NOTHING;
    if (secure && !set_id_image)
        return SERVE_NOTHING;
    load(!secure && !set_id_image);
    final = !set_id_image || !by_proc;
    if (secure && !by_proc && !image_has_listed_path(&config)) /* a link of the caller's may name any program */
        refuse(
            "/proc, which says what program this is, can't be read, and it was not executed as a `program` "
            "in " FASTSPOOL_CONFIG "; mount /proc");
    starter = getuid();
    bool marked = getenv(PLACES_USERS) != NULL; /* a user who sets the mark himself only loses by it */
    STORE(users, marked || (!refusal[0] && !is_trusted(starter)));
    if (LOAD(users))
        return set_id_image && !marked ? WATCH : SERVE_NOTHING;
    bool listed = (set_id_image || !links) && image_is_listed(&config, &own_image);
    if (passes_to_view(links || listed))
        return SERVE_NOTHING;
    STORE(users, !refusal[0] && in_users_group());
    if (LOAD(users))
        return SERVE_NOTHING;
    by_preload = secure || image_preload(&length) != NULL;
    look_ahead();
    if (!set_id_image)
        return SERVE;
    enum decision found = decide_set_id(listed);
    if (found == SERVE && !refusal[0])
        prepare_memory();
    return found;
}

/* (Apart, as each call comes to the one below.) */
static __attribute__((noinline)) void decide_once(void)
{
    struct outside outside;

    if (!forks_begin(&outside, false))
        return;
    if (LOAD(word.decision) == UNDECIDED)
        STORE(word.decision, decide());
    forks_end(&outside);
}

static enum decision decided(void)
{
    if (LOAD(word.decision) == UNDECIDED)
        decide_once();
    return LOAD(word.decision);
}

bool serve_active(void)
{
    return decided() == SERVE;
}

bool serve_looks(void)
{
    return decided() >= WATCH;
}

bool serve_is_users(void)
{
    return !serve_active() && LOAD(users);
}

/* Asked where a program is executed: most processes execute none. */
bool serve_is_global(void)
{
    return links || image_is_preloaded_for_all();
}

bool serve_by_preload(void)
{
    return by_preload && !(getauxval(AT_SECURE) && serve_is_global());
}

bool serve_may_stay(uid_t uid)
{
    return is_trusted_user(uid) || attachment_may_hold(uid);
}

bool serve_is_program(const struct stat *st)
{
    return (st->st_dev == own_image.st_dev && st->st_ino == own_image.st_ino) || image_is_program(&config, st);
}

/* ---- matching ---- */

/* Does @path begin with the spool's, byte by byte, as of nearly all files of the spool?  Then the length of that. */
static size_t begins(const char *path, const struct spool *spool)
{
    size_t length = spool->plain;

    return length && path[1] == spool->given[1] && strncmp(path, spool->given, length) == 0 && path[length] == '/'
               ? length
               : 0;
}

size_t serve_begins(const char *path)
{
    size_t length = 0;

    for (size_t i = 0; i < spool_count && !length; i++)
        length = begins(path, &spools[i]);
    return length;
}

/* Length of @spool at the start of @path, "//" and "/./" included; 0: another path. */
static size_t match(const char *path, const char *spool)
{
    const char *at = path;

    while (*spool) {
        size_t length;
        while (*spool == '/')
            spool++;
        if (*at != '/')
            return 0;
        while (*at == '/' || (at[0] == '.' && at[-1] == '/' && (at[1] == '/' || at[1] == '\0')))
            at++;
        length = (size_t)(strchrnul(spool, '/') - spool);
        if (strncmp(at, spool, length) != 0 || (at[length] != '/' && at[length] != '\0'))
            return 0;
        at += length;
        spool += length;
    }
    return (size_t)(at - path);
}

/* Two configured names of one directory are one spool. */
static size_t first_of(size_t number)
{
    for (size_t i = 0; i < number; i++) {
        if (spools[i].real[0] && strcmp(spools[i].real, spools[number].real) == 0)
            return i;
    }
    return number;
}

/* Has the directory of the first @length bytes of @path a state directory, and no view?  (Not part of the search: a
 * path of another kind would cost the stack two pages, in each process.) */
static __attribute__((noinline)) bool is_unnamed(const char *path, size_t length, bool owned)
{
    char place[PATH_MAX + sizeof("/" PLACES_STATE)];
    struct stat st;
    int saved = errno;

    snprintf(place, sizeof(place), "%.*s/" PLACES_STATE, (int)length, path);
    bool there = real.lstat(place, &st) == 0 && S_ISDIR(st.st_mode);
    place[length] = '\0';
    there = there && (!owned || (real.stat(place, &st) == 0 && st.st_uid == starter)) && viewed(place) <= 0;
    errno = saved;
    return there;
}

/* Where a spool ends in @path that has a state directory, and that nobody has named; 0: there is none.  @owned: only
 * one of this user's. */
static size_t match_unnamed(const char *path, bool owned)
{
    bool like = false;

    for (const char *at = path + 1; (at = strchr(at, '/')); at++) {
        if (exim_policy(at) != EXIM_STORE || at - path >= PATH_MAX)
            continue;
        like = true;
        if (is_unnamed(path, (size_t)(at - path), owned))
            return (size_t)(at - path);
    }
    nameless = like;
    return 0;
}

static size_t find_match(const char *path)
{
    size_t found = 0;

    nameless = false;
    for (size_t i = 0; i < spool_count && !found; i++) {
        size_t length = begins(path, &spools[i]);
        if (length == 0)
            length = match(path, spools[i].given);
        if (length == 0 && spools[i].real[0])
            length = match(path, spools[i].real);
        if (length) {
            matched = first_of(i);
            found = length;
        }
    }
    bool suspects = (set_id_image || refusal[0]) && (!found || exim_policy(path + found) != EXIM_STORE);
    bool watches = LOAD(word.decision) == WATCH;
    size_t length = suspects ? match_unnamed(path, watches) : 0;
    if (!length)
        return watches ? 0 : found;
    matched = UNNAMED;
    if (!LOAD(told))
        snprintf(unnamed, sizeof(unnamed), "%.*s", (int)length, path);
    return length;
}

/* A process that was refused decides again: by the configuration alone, as Exim has cleaned its environment by now.  It
 * will be served, or goes on being refused: it never falls back to the disk.
 *   - Its threads read `spools` without a lock, so there must be no other one.
 *   - A spool whose store is attached keeps its number. */
static bool mend(void)
{
    struct outside outside;

    if (final || LOAD(passed) || LOAD(left) || LOAD(word.decision) < REFUSE || !__libc_single_threaded || matching ||
        clock_monotonic() - decided_at < AGAIN || !forks_begin(&outside, false))
        return false;
    refusal[0] = '\0';
    load(false);
    bool listed = image_is_listed(&config, &own_image);
    if (!listed)
        refuse_unlisted();
    final = !refusal[0] && (!is_trusted(starter) || cgroup_is_users(is_trusted));
    if (final)
        refuse("an ordinary user has started this Exim, or may freeze it: start it as a service");
    STORE(word.decision, listed ? SERVE : REFUSE);
    if (listed && !refusal[0] && geteuid() == 0)
        prepare_memory();
    forks_end(&outside);
    return true;
}

size_t serve_match(const char *path)
{
    bool outer = matching;

    matching = true;
    size_t found = find_match(path);
    matching = outer;
    bool refused = found ? refusal[0] || matched == UNNAMED : refusal[0] && nameless;
    if (refused && mend()) {
        matching = true;
        found = find_match(path);
        matching = outer;
    }
    if (!found && nameless)
        STORE(passed, 1);
    return found;
}

/* ---- attaching ---- */

static void attach(size_t number)
{
    struct fastspool *fs = NULL;
    char error[FASTSPOOL_ERROR_MAX] = "";
    struct spool *spool = &spools[number];

    uint64_t began = clock_monotonic();
    int result = fastspool_attach(spool->given, config_of(spool), &fs, error);
    if (result == -EINTR) /* the signal comes when signals are let in again: the next call tries again */
        return;
    if (result < 0) {
        /* For a user's `ls` the errno is enough.  If Exim may not use its spool, the administrator must know. */
        if ((result != -EACCES || (own_image.st_mode & S_ISUID)) && strcmp(spool->said, error) != 0)
            say(spool->given, behind_name(error, spool->given));
        strcpy(spool->said, error);
        uint64_t now = clock_monotonic(), took = now - began;
        STORE(spool->again, now + (took > AGAIN / 4 ? 4 * took : AGAIN)); /* a wait is a small part of the time */
        STORE(spool->failed, result == -EACCES ? EACCES : EIO);
        return;
    }
    STORE(spool->failed, 0);
    STORE(attachments[number], fs);
}

/* One line, at the first call that fails. */
static void tell_refusal(void)
{
    uint32_t untold = 0;

    if (!__atomic_compare_exchange_n(&told, &untold, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    if (refusal[0])
        say("can't say whose the spool is, so it can't be used", refusal);
    else
        say(unnamed, "it has a store, but " FASTSPOOL_CONFIG
                     " does not name it, so it can't be used: say `spool = ` and "
                     "its path there; or, if you have left fastspool, remove its directory " PLACES_STATE);
}

/* Is the spool to be attached?  After a failure once more when its time has come: nothing of it was used. */
static bool attaches(size_t number)
{
    const struct spool *spool = &spools[number];

    return !LOAD(attachments[number]) && !LOAD(left) &&
           (!LOAD(spool->failed) || clock_monotonic() >= LOAD(spool->again));
}

static struct fastspool *store_of(size_t number, int *error)
{
    struct spool *spool = &spools[number];
    struct outside outside;

    if (attaches(number)) {
        if (!forks_begin(&outside, true)) {
            *error = 0; /* a call of the attachment itself */
            return NULL;
        }
        if (attaches(number))
            attach(number);
        forks_end(&outside);
    }
    struct fastspool *fs = LOAD(attachments[number]);
    uint32_t reason = LOAD(left) ? EACCES : LOAD(spool->failed);
    *error = fs ? 0 : reason ? (int)reason : EINTR;
    return fs;
}

struct fastspool *serve_store(int *error)
{
    if (refusal[0] || matched == UNNAMED) {
        tell_refusal();
        *error = EIO;
        return NULL;
    }
    struct fastspool *fs = LOAD(attachments[matched]);
    if (!fs)
        return store_of(matched, error);
    *error = 0;
    return fs;
}

/* Those that are attached are asked first: attaching another one may cost the process all of them (identity.c). */
uint32_t serve_identify(int fd)
{
    uint32_t description = 0;
    int error;

    if (refusal[0])
        tell_refusal();
    for (size_t i = 0; i < 2 * spool_count && !refusal[0] && !description; i++) {
        size_t number = i % spool_count;
        struct fastspool *fs = LOAD(attachments[number]);
        if (i >= spool_count)
            fs = !fs && first_of(number) == number ? store_of(number, &error) : NULL;
        description = fs ? inside_identify(fs, fd) : 0;
        if (description)
            description = attachment_number(fs, description);
    }
    return description;
}

/* The spool that this process works in, as Exim does, or the only one.  Another one may be another user's, and then
 * this process could not stay in it. */
static bool match_own(void)
{
    char directory[PATH_MAX];

    if (spool_count == 1)
        matched = 0;
    return spool_count == 1 || (getcwd(directory, sizeof(directory)) && serve_match(directory) && matched != UNNAMED);
}

/* A daemon attaches before it forks, so its children need not.  (Attaching takes 120 us in a program of its own.)
 * Nothing else brings the view back: what takes a message has given up root's rights by then. */
EXPORT int listen(int fd, int backlog)
{
    BOUND();
    int result = real.listen(fd, backlog);
    listens = listens || result == 0;
    if (result == 0 && serve_active() && match_own()) {
        int error;
        serve_store(&error);
        if (error)
            STORE(spools[matched].failed, 0);
    }
    return result;
}

void serve_end_listing(int error)
{
    bool had = matched == UNNAMED || LOAD(spools[matched].failed) != (uint32_t)error;

    if (set_id_image && !listens && (error == EIO || !had))
        _exit(EX_TEMPFAIL);
}

void serve_leave(void)
{
    STORE(left, 1);
    for (size_t i = 0; i < spool_count; i++) {
        struct fastspool *fs = LOAD(attachments[i]);
        STORE(attachments[i], NULL);
        if (fs)
            fastspool_detach(fs);
    }
}
