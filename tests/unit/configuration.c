/* SPDX-License-Identifier: MIT
 *
 * The configuration: what it accepts, what it refuses, and the line that a message names.
 */
#include "spool/configuration.h"
#include "fastspool.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct fastspool_config config;
static char error[FASTSPOOL_ERROR_MAX];
static char path[] = "/tmp/fastspool-test.conf.XXXXXX";

static void write_file(const char *text)
{
    strcpy(path + sizeof(path) - 7, "XXXXXX");
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static int load(const char *text, bool environment)
{
    write_file(text);
    int result = fastspool_config_load(&config, path, environment, error);
    unlink(path);
    return result;
}

/* All keys, comments, blank lines and repeated keys are accepted. */
Test(configuration, everything)
{
    cr_assert_eq(load("# a comment\n\n  spool = /var/spool/one/ # the first\nspool=/var/spool/two\ndurability = lazy\n"
                      "memory = 512M\nflush_interval = 250ms\nstate = /var/lib/x\nruntime = /run/x\n"
                      "program = /usr/sbin/exim4\ntrusted_user = 1001\ntrusted_user = 1002\ntrusted_user = nobody",
                      true),
                 0, "%s", error);
    cr_assert_eq(config.spools, 2);
    cr_assert_eq(config.durability, FASTSPOOL_LAZY);
    cr_assert_str_eq(config.spool[0], "/var/spool/one");
    cr_assert_eq(config.memory, UINT64_C(512) << 20);
    cr_assert_eq(config.flush_interval, 250000000);
    cr_assert_str_eq(config.state, "/var/lib/x");
    cr_assert_eq(config.programs, 1);
    cr_assert_eq(config.trusted_users, 3);
    cr_assert_eq(config.trusted_user[1], 1002);
    cr_assert_eq(config.trusted_user[2], 65534);
}

/* How much memory there is, is found out where somebody asks, and is the same then. */
Test(configuration, memory_that_is_not_configured)
{
    write_file("durability = lazy");
    cr_assert_eq(configuration_read(&config, path, false, error), 0, "%s", error);
    cr_assert_eq(config.memory, 0);
    cr_assert_eq(fastspool_config_load(&config, path, false, error), 0, "%s", error);
    cr_assert_gt(config.memory, 0);
    cr_assert_eq(configuration_memory(0), config.memory);
    cr_assert_eq(configuration_memory(5), 5);
    unlink(path);
}

/* Each mistake is refused with a message that has the line number and the word. */
struct mistake {
    char text[64];
    char word[32];
};
ParameterizedTestParameters(configuration, mistakes)
{
    static struct mistake mistakes[] = {
        {"foo = 1", "unknown key `foo`"},
        {"memory = lots", "lots"},
        {"memory = 0", "`0`"},
        {"memory = 101%", "101%"},
        {"memory = 5MB", "5MB"},
        {"memory = 12", "at least 4M"},
        {"memory = 4095K", "`4095K`"},
        {"memory = -1M", "-1M"},
        {"flush_interval = 5", "`5`"},
        {"flush_interval = 2h", "2h"},
        {"spool = spool", "absolute"},
        {"state = x", "absolute"},
        {"durability = eventually", "acked, lazy or strict"},
        {"trusted_user = no-such-user", "passwd: `no-such-user`"},
        {"trusted_user = nobod", "`nobod`"},
        {"trusted_user = -1", "`-1`"},
        {"trusted_user = 4294967295", "`4294967295`"},
        {"memory", "key = value"},
        {"memory =", "no value"},
        {"\xef\xbb\xbfmemory = 1G", "byte order mark"},
    };
    return cr_make_param_array(struct mistake, mistakes, sizeof(mistakes) / sizeof(*mistakes));
}
ParameterizedTest(struct mistake *mistake, configuration, mistakes)
{
    char text[128];
    snprintf(text, sizeof(text), "\n# two lines above\n%s\n", mistake->text);
    cr_assert_eq(load(text, true), -EINVAL);
    cr_assert_not_null(strstr(error, mistake->word), "%s: the message is: %s", mistake->text, error);
    cr_assert_not_null(strstr(error, ":3: "), "%s: the message is: %s", mistake->text, error);
}

/* The environment overrides the file where that is allowed, and has no effect where it is not. */
Test(configuration, environment)
{
    setenv("FASTSPOOL_SPOOL", "/srv/mine", 1);
    setenv("FASTSPOOL_MEMORY", "64M", 1);
    cr_assert_eq(load("spool = /var/spool/exim4\nmemory = 1G\n", true), 0);
    cr_assert_str_eq(config.spool[0], "/srv/mine");
    cr_assert_eq(config.memory, 64 << 20);
    if (geteuid() == 0) {
        cr_assert_eq(load("spool = /var/spool/exim4\nmemory = 1G\n", false), 0, "%s", error);
        cr_assert_str_eq(config.spool[0], "/var/spool/exim4");
        cr_assert_eq(config.memory, 1 << 30);
    }
    setenv("FASTSPOOL_MEMORY", "much", 1);
    cr_assert_eq(load("", true), -EINVAL);
    cr_assert_not_null(strstr(error, "FASTSPOOL_MEMORY"), "the message is: %s", error);
}

/* Without the environment, a file that other users can write, or that root does not own, is refused. */
Test(configuration, trusted_file)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    write_file("memory = 1G\n");
    cr_assert_eq(chmod(path, 0666), 0);
    cr_assert_eq(fastspool_config_load(&config, path, false, error), -EINVAL);
    cr_assert_eq(chmod(path, 0644), 0);
    cr_assert_eq(chown(path, 12345, 0), 0);
    cr_assert_eq(fastspool_config_load(&config, path, false, error), -EINVAL);
    cr_assert_eq(fastspool_config_load(&config, path, true, error), 0, "%s", error);
    unlink(path);
}

/* A configuration that is refused still names its spools and programs, or else the defaults. */
Test(configuration, refused)
{
    cr_assert_eq(load("memory = lots\nspool = /srv/one\nspol = /srv/two\nprogram = /srv/exim\n", true), -EINVAL);
    cr_assert_not_null(strstr(error, ":1: "), "the first error counts: %s", error);
    cr_assert_eq(config.spools, 1);
    cr_assert_str_eq(config.spool[0], "/srv/one");
    cr_assert_str_eq(config.program[0], "/srv/exim");
    cr_assert_eq(load("memory = lots\n", true), -EINVAL);
    cr_assert_gt(config.programs, 1);
    setenv("FASTSPOOL_SPOOL", "/srv/mine", 1);
    cr_assert_eq(load("memory = lots\n", true), -EINVAL);
    cr_assert_str_eq(config.spool[0], "/srv/mine");
    if (geteuid() != 0)
        return;
    write_file("spool = /srv/one\n");
    cr_assert_eq(chmod(path, 0664), 0);
    cr_assert_eq(fastspool_config_load(&config, path, false, error), -EINVAL);
    cr_assert_not_null(strstr(error, "chmod"), "the message is: %s", error);
    cr_assert_str_eq(config.spool[0], "/srv/one");
    unlink(path);
}

/* A missing file gives the defaults. */
Test(configuration, defaults)
{
    cr_assert_eq(fastspool_config_load(&config, "/nonexistent/fastspool.conf", true, error), 0);
    cr_assert_eq(config.durability, FASTSPOOL_ACKED);
    cr_assert_eq(config.flush_interval, 100000000);
    cr_assert_gt(config.memory, 0);
}
