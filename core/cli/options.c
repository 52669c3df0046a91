/* Walks argv: options into a draft, the other words into operands, and then into a config. */
#include "penstock/cli/options.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "options_priv.h"
#include "penstock/admin/admin.h"
#include "penstock/base/err.h"

/* One options_parse() under way. */
struct walk {
    struct options *o;
    char *const *argv;
    int argc;
    int next;        /* argv[next] has not been looked at */
    char **operands; /* room for argc */
    size_t n_operands;
    char *why;
    size_t why_cap;
};

__attribute__((format(printf, 2, 3))) static enum options_result refuse(struct walk *w,
                                                                        const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(w->why, w->why_cap, fmt, args);
    va_end(args);
    return OPTIONS_WRONG;
}

/* ---- one option ---- */

const struct option_spec *options_find(const char *name)
{
    size_t n;
    const struct option_spec *table = options_table(&n);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    }
    return NULL;
}

static const struct option_spec *find_letter(char letter)
{
    size_t n;
    const struct option_spec *table = options_table(&n);
    for (size_t i = 0; i < n; i++) {
        if (table[i].letter == letter)
            return &table[i];
    }
    return NULL;
}

/* What to write for this option: "30, 500ms, 2m or 1h". */
static const char *good_values(const struct option_spec *spec, char *buf, size_t cap)
{
    char min[32], max[32];
    if (spec->words)
        return options_join_words(spec->words, buf, cap);
    if (spec->type->write)
        return spec->type->write;
    PENSTOCK_REQUIRE(spec->type->format);
    spec->type->format(spec->min, min, sizeof min);
    spec->type->format(spec->max, max, sizeof max);
    snprintf(buf, cap, "%s to %s", min, max);
    return buf;
}

int options_store(struct draft *d, const struct option_spec *spec, const char *label,
                  const char *value, char *why, size_t why_cap)
{
    char good[128], min[32], max[32];
    int err = spec->type->store(spec, (char *)d + spec->offset, value);
    if (err == -ENOMEM)
        snprintf(why, why_cap, "%s: %s", label, err_text(err));
    else if (err == -ERANGE && spec->type->format)
        snprintf(why, why_cap, "%s: \"%s\" is out of range; write %s to %s", label, value,
                 spec->type->format(spec->min, min, sizeof min),
                 spec->type->format(spec->max, max, sizeof max));
    else if (err)
        snprintf(why, why_cap, "%s: \"%s\" is not %s; write %s", label, value, spec->type->what,
                 good_values(spec, good, sizeof good));
    return err;
}

/* `value` is NULL for options that take none. */
static enum options_result apply(struct walk *w, const struct option_spec *spec, const char *value)
{
    if (!spec->type)
        return spec->letter == 'h' ? OPTIONS_HELP : OPTIONS_VERSION;
    if (spec->letter == 'p' && w->o->draft.config.policy)
        return refuse(w, "--policy is given twice (%s, %s); this version takes one",
                      w->o->draft.config.policy, value);
    char label[64];
    size_t n;
    w->o->given[spec - options_table(&n)] = true;
    snprintf(label, sizeof label, "--%s", spec->name);
    int err = options_store(&w->o->draft, spec, label, value, w->why, w->why_cap);
    return err ? OPTIONS_WRONG : OPTIONS_RUN;
}

/* Takes the value from the next word; when that looks like an option, a value was forgotten. */
static enum options_result apply_next(struct walk *w, const struct option_spec *spec)
{
    char good[128];
    const char *value = w->next < w->argc ? w->argv[w->next] : NULL;
    if (!value || strncmp(value, "--", 2) == 0)
        return refuse(w, "--%s needs a value, %s; write %s", spec->name, spec->arg,
                      good_values(spec, good, sizeof good));
    w->next++;
    return apply(w, spec, value);
}

static enum options_result refuse_unknown(struct walk *w, const char *name)
{
    const char *nearest = options_nearest(name);
    if (nearest)
        return refuse(w, "unknown option --%s; did you mean --%s?", name, nearest);
    return refuse(w, "unknown option --%s; penstock --help lists them", name);
}

/* "--name", "--name value" or "--name=value" */
static enum options_result parse_long(struct walk *w, const char *word)
{
    const char *equals = strchr(word, '=');
    char *name = strndup(word, equals ? (size_t)(equals - word) : strlen(word));
    if (!name)
        return refuse(w, "%s", err_text(-ENOMEM));
    const struct option_spec *spec = options_find(name);
    enum options_result result;
    if (!spec)
        result = refuse_unknown(w, name);
    else if (spec->arg)
        result = equals ? apply(w, spec, equals + 1) : apply_next(w, spec);
    else if (equals)
        result = refuse(w, "--%s takes no value; write --%s alone", name, name);
    else
        result = apply(w, spec, NULL);
    free(name);
    return result;
}

/* "-p FILE", "-pFILE", or letters together: "-hV" */
static enum options_result parse_short(struct walk *w, const char *letters)
{
    if (letters[1] && options_find(letters)) /* "-policy" would read the file "olicy" */
        return refuse(w, "unknown option -%s; did you mean --%s?", letters, letters);
    for (; *letters; letters++) {
        const struct option_spec *spec = find_letter(*letters);
        if (!spec)
            return refuse(w, "unknown option -%c; penstock --help lists them", *letters);
        if (spec->arg && letters[1])
            return apply(w, spec, letters + 1);
        enum options_result result = spec->arg ? apply_next(w, spec) : apply(w, spec, NULL);
        if (result != OPTIONS_RUN)
            return result;
    }
    return OPTIONS_RUN;
}

/* ---- all of them ---- */

static enum options_result parse_words(struct walk *w)
{
    enum options_result result = OPTIONS_RUN;
    bool options_ended = false;
    while (result == OPTIONS_RUN && w->next < w->argc) {
        char *word = w->argv[w->next++];
        if (options_ended || word[0] != '-' || word[1] == '\0')
            w->operands[w->n_operands++] = word;
        else if (strcmp(word, "--") == 0)
            options_ended = true;
        else
            result = word[1] == '-' ? parse_long(w, word + 2) : parse_short(w, word + 1);
    }
    return result;
}

static bool ends_in_lua(const char *word)
{
    size_t len = strlen(word);
    return len > 4 && strcmp(word + len - 4, ".lua") == 0;
}

/* "run CONFIG.lua" and "check CONFIG.lua" */
static enum options_result take_file(struct walk *w, const char *word)
{
    struct config *c = &w->o->draft.config;
    if (c->policy)
        return refuse(
            w,
            "penstock %s takes a configuration or -p %s, not both; a configuration names its "
            "policies itself: ps.listen{ policy = require \"guard\" }",
            word, c->policy);
    if (w->n_operands != 2)
        return refuse(w, "penstock %s takes one file: penstock %s penstock.lua%s", word, word,
                      w->n_operands > 2 ? "; its listeners are in the file" : "");
    c->policy = strdup(w->operands[1]);
    w->n_operands = 0;
    return c->policy ? OPTIONS_RUN : refuse(w, "%s", err_text(-ENOMEM));
}

static bool asks_for_certificate(const struct options_tls *o)
{
    return o->client_ca && (o->client_cert < 0 || o->client_cert == TLS_CLIENT_CERT_REQUIRE);
}

/* "socks LISTEN" and "connect LISTEN": a listener whose policy names the destinations. */
static enum options_result take_proxy(struct walk *w, const char *preset)
{
    static char no_target[] = "-";
    struct draft *d = &w->o->draft;
    if (d->config.policy)
        return refuse(w,
                      "penstock %s brings its policy; to put %s beside it write a configuration: "
                      "ps.listen{ bind = \":1080\", policy = { …, require "
                      "\"penstock.policy.%s\"{ allow = … } } }",
                      preset, d->config.policy, preset);
    if (d->to->n_hops || d->send_proxy >= 0)
        return refuse(w, "penstock %s connects to what its clients name, and takes no %s", preset,
                      d->to->n_hops ? "--via" : "--send-proxy");
    if (!d->config.allow)
        return refuse(w,
                      "penstock %s needs the destinations that clients may reach: --allow "
                      "'*.example.com:443,10.0.0.0/8:22', or --allow any for all of the open "
                      "internet",
                      preset);
    if (w->n_operands != 2)
        return refuse(w, "penstock %s takes one LISTEN: penstock %s --allow any 1080%s", preset,
                      preset, w->n_operands > 2 ? "; several stand in it with commas" : "");
    if (asprintf(&d->config.policy, "penstock %s", preset) < 0) {
        d->config.policy = NULL;
        return refuse(w, "%s", err_text(-ENOMEM));
    }
    d->config.preset = preset;
    d->config.anonymous = !d->config.auth && !asks_for_certificate(&d->tls);
    w->operands[0] = w->operands[1];
    w->operands[1] = no_target;
    return OPTIONS_RUN;
}

/* The first word may be a command. */
static enum options_result take_command(struct walk *w)
{
    static const char *const planned[] = {"top", "toxiproxy"};
    const char *first = w->n_operands ? w->operands[0] : "";
    for (size_t i = 0; i < sizeof planned / sizeof planned[0]; i++) {
        if (strcmp(first, planned[i]) == 0)
            return refuse(w,
                          "\"penstock %s\" is not in this version; it forwards: "
                          "penstock 8080 db.internal:5432",
                          first);
    }
    if (strcmp(first, "test") == 0)
        return refuse(w, "test comes first, and has options of its own: penstock test --help");
    if (strcmp(first, "ctl") == 0)
        return refuse(w, "ctl comes first, and has options of its own: penstock ctl --help");
    if (strcmp(first, "socks") == 0)
        return take_proxy(w, "socks");
    if (strcmp(first, "connect") == 0)
        return take_proxy(w, "connect");
    if (strcmp(first, "run") == 0) {
        w->o->command = COMMAND_RUN;
        return take_file(w, first);
    }
    if (strcmp(first, "check") != 0)
        return OPTIONS_RUN;
    w->o->command = COMMAND_CHECK;
    if (!w->o->draft.config.policy)
        return take_file(w, first);
    w->operands++;
    w->n_operands--;
    w->o->of_policy = true;
    return OPTIONS_RUN;
}

static enum options_result check_operands(struct walk *w)
{
    enum options_result result = take_command(w);
    if (result != OPTIONS_RUN)
        return result;
    const char *first = w->n_operands ? w->operands[0] : "";
    const char *meant = options_nearest_command(first);
    const struct config *c = &w->o->draft.config;
    if (meant)
        return refuse(w, "unknown command \"%s\"; did you mean penstock %s?", first, meant);
    if (!c->preset && (c->allow || c->auth))
        return refuse(w,
                      "--%s belongs to penstock socks and penstock connect: penstock socks "
                      "--allow any 1080",
                      c->allow ? "allow" : "auth");
    if (ends_in_lua(first))
        return refuse(w,
                      "\"%s\" is no address; if it is a policy, write -p %s; if it is a "
                      "configuration, penstock run %s",
                      first, first, first);
    if (w->n_operands == 0 && !w->o->draft.config.policy)
        return refuse(w, "LISTEN and TARGET are missing: penstock 8080 db.internal:5432");
    if (w->n_operands % 2 != 0)
        return refuse(w, "LISTEN \"%s\" has no TARGET: write penstock %s%s db.internal:5432",
                      w->operands[w->n_operands - 1], w->n_operands > 1 ? "… " : "",
                      w->operands[w->n_operands - 1]);
    w->o->operands = w->n_operands > 0;
    return OPTIONS_RUN;
}

/* What the draft keeps apart goes into the config. */
static void settle(struct draft *d)
{
    struct config *c = &d->config;
    c->workers = d->workers ? d->workers : options_auto_workers();
    c->log.level = (enum log_level)d->log_level;
    c->log.format = LOG_TEXT;
    if (d->log_format >= 0)
        c->log.format = (enum log_format)d->log_format;
    else if (!c->log.file)
        c->log.format = options_default_log_format(getenv("JOURNAL_STREAM"), STDERR_FILENO);
}

/* Without --via and its kin, every target goes without options. */
static int settle_targets(struct draft *d, char *why, size_t why_cap)
{
    d->to->proxy = (enum target_proxy)(d->send_proxy + 1);
    int err = options_tls_settle_dial(&d->tls, d->to, why, why_cap);
    if (err || d->to->n_hops || d->to->proxy != TARGET_PROXY_NONE || d->to->tls)
        return err;
    target_options_free(d->to);
    d->to = NULL;
    return 0;
}

static enum options_result read_all(struct walk *w)
{
    enum options_result result = parse_words(w);
    if (result == OPTIONS_RUN)
        result = check_operands(w);
    if (result != OPTIONS_RUN)
        return result;
    struct draft *d = &w->o->draft;
    if (d->config.core_dumps)
        tls_allow_core_dumps();
    d->each.relay = (enum relay_choice)d->mode;
    int err = settle_targets(d, w->why, w->why_cap);
    if (!err)
        err = options_tls_settle_accept(&d->tls, "", w->why, w->why_cap);
    if (!err)
        err = options_add_listeners(d, w->operands, w->n_operands, w->why, w->why_cap);
    if (!err)
        err = options_check_twins(&d->config, w->why, w->why_cap);
    settle(d); /* for the log, until a script says otherwise */
    return err ? OPTIONS_WRONG : OPTIONS_RUN;
}

/* The defaults that config_add_listener() gives. */
static int draft_init(struct draft *d)
{
    struct config scratch;
    config_init(&scratch);
    const struct config_listener *l = config_add_listener(&scratch);
    if (!l)
        return -ENOMEM;
    *d = (struct draft){.log_format = -1, .send_proxy = -1, .each = *l};
    options_tls_init(&d->tls);
    config_init(&d->config);
    d->to = target_options_new();
    d->log_level = (int)d->config.log.level;
    d->mode = (int)l->relay;
    config_deinit(&scratch);
    return d->to ? 0 : -ENOMEM;
}

enum options_result options_read(int argc, char *const argv[], struct options **out, char *why,
                                 size_t why_cap)
{
    *out = NULL;
    if (argc <= 1)
        return OPTIONS_NOTHING;
    struct walk w = {.argv = argv, .argc = argc, .next = 1, .why = why, .why_cap = why_cap};
    char **words = calloc((size_t)argc, sizeof *words);
    w.operands = words;
    w.o = calloc(1, sizeof *w.o);
    enum options_result result;
    if (!words || !w.o || draft_init(&w.o->draft))
        result = refuse(&w, "%s", err_text(-ENOMEM));
    else
        result = read_all(&w);
    free(words);
    if (result == OPTIONS_RUN)
        *out = w.o;
    else
        options_free(w.o);
    return result;
}

void options_free(struct options *o)
{
    if (!o)
        return;
    config_deinit(&o->draft.config);
    target_options_free(o->draft.to);
    options_tls_deinit(&o->draft.tls);
    networks_drop(o->draft.each.accept_proxy.from);
    free(o);
}

enum options_command options_command(const struct options *o)
{
    return o->command;
}

const struct config *options_config(const struct options *o)
{
    return &o->draft.config;
}

/* A policy may be checked without a listener. */
static int check_listeners(const struct options *o, char *why, size_t why_cap)
{
    const struct config *c = &o->draft.config;
    if (c->n_listeners)
        return options_check_twins(c, why, why_cap);
    if (o->command == COMMAND_CHECK && o->of_policy)
        return 0;
    if (o->command == COMMAND_FORWARD)
        snprintf(why, why_cap,
                 "-p %s needs a LISTEN and a TARGET: penstock -p %s 8080 db.internal:5432, "
                 "or 8080 - where its connect hook names the destination",
                 c->policy, c->policy);
    else
        snprintf(why, why_cap,
                 "%s has no listener: ps.listen{ bind = \":6379\", to = \"redis.internal:6379\" }",
                 c->policy);
    return -EINVAL;
}

static int note_process(struct draft *d, char *why, size_t why_cap)
{
    d->workers = d->config.workers;
    d->log_format = (int)d->config.log.format;
    d->config.settings = options_note(&d->config, d, false);
    if (!d->config.settings)
        snprintf(why, why_cap, "%s", err_text(-ENOMEM));
    return d->config.settings ? 0 : -ENOMEM;
}

int options_finish(struct options *o, struct config *out, char *why, size_t why_cap)
{
    int err = check_listeners(o, why, why_cap);
    if (!err)
        err = options_tls_check(&o->draft.tls, why, why_cap);
    if (!err)
        err = admin_check(&o->draft.config, why, why_cap);
    if (err)
        return err;
    settle(&o->draft);
    err = note_process(&o->draft, why, why_cap);
    if (err)
        return err;
    *out = o->draft.config;
    config_init(&o->draft.config);
    return 0;
}

enum options_result options_parse(int argc, char *const argv[], struct config *config, char *why,
                                  size_t why_cap)
{
    struct options *o;
    config_init(config);
    enum options_result result = options_read(argc, argv, &o, why, why_cap);
    if (result == OPTIONS_RUN && options_finish(o, config, why, why_cap))
        result = OPTIONS_WRONG;
    options_free(o);
    return result;
}

/* ---- defaults that depend on where we run ---- */

uint32_t options_auto_workers(void)
{
    uint32_t n = 0;
#ifdef __linux__
    /* The kernel refuses a set smaller than its own: grow until it fits. */
    for (int cpus = 1024; n == 0 && cpus <= 1 << 16; cpus *= 2) {
        size_t size = CPU_ALLOC_SIZE(cpus);
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set)
            break;
        if (sched_getaffinity(0, size, set) == 0)
            n = (uint32_t)CPU_COUNT_S(size, set);
        CPU_FREE(set);
    }
#endif
    if (n == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        n = online > 0 ? (uint32_t)online : 1;
    }
    return n > 1024 ? 1024 : n; /* as many as --workers takes */
}

enum log_format options_default_log_format(const char *journal_stream, int fd)
{
    struct stat st;
    unsigned long long device, inode;
    char rest;
    if (!journal_stream || sscanf(journal_stream, "%llu:%llu%c", &device, &inode, &rest) != 2 ||
        fstat(fd, &st) != 0)
        return LOG_TEXT;
    return st.st_dev == device && st.st_ino == inode ? LOG_JOURNAL : LOG_TEXT;
}
