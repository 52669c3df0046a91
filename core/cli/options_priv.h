/* What the parts of the command line share: the table's types, and the draft that parsing fills. */
#ifndef PENSTOCK_CORE_CLI_OPTIONS_PRIV_H
#define PENSTOCK_CORE_CLI_OPTIONS_PRIV_H

#include "options_tls.h"
#include "penstock/base/json.h"
#include "penstock/cli/options.h"
#include "penstock/script/script.h"

/* How a kind of value is read, and how to speak of it. */
struct option_type {
    const char *what;  /* "a time": what a bad value is not */
    const char *write; /* examples of good ones; NULL: they come from the words or the bounds */
    /* Reads `value` into *field. 0; or -EINVAL, -ERANGE (not in [min, max]) or -ENOMEM, and *field
     * is as it was. */
    int (*store)(const struct option_spec *spec, void *field, const char *value);
    /* A bound as text, for types with bounds. */
    const char *(*format)(uint64_t bound, char *buf, size_t cap);
    /* Writes what *field holds as a value of JSON, without secrets: null for what is not given. */
    void (*show)(const struct option_spec *spec, const void *field, struct json *j);
};

/* options_show.c: for each kind of field. */
void options_show_flag(const struct option_spec *spec, const void *field, struct json *j);
void options_show_u32(const struct option_spec *spec, const void *field, struct json *j);
void options_show_u64(const struct option_spec *spec, const void *field, struct json *j);
void options_show_size32(const struct option_spec *spec, const void *field, struct json *j);
void options_show_size64(const struct option_spec *spec, const void *field, struct json *j);
void options_show_time_ms(const struct option_spec *spec, const void *field, struct json *j);
void options_show_time_s(const struct option_spec *spec, const void *field, struct json *j);
void options_show_word(const struct option_spec *spec, const void *field, struct json *j);
void options_show_text(const struct option_spec *spec, const void *field, struct json *j);
void options_show_ip(const struct option_spec *spec, const void *field, struct json *j);
void options_show_networks(const struct option_spec *spec, const void *field, struct json *j);
void options_show_via(const struct option_spec *spec, const void *field, struct json *j);
void options_show_certs(const struct option_spec *spec, const void *field, struct json *j);
void options_show_keys(const struct option_spec *spec, const void *field, struct json *j);
void options_show_sni(const struct option_spec *spec, const void *field, struct json *j);

/* What the options say, before there are listeners to say it of. Words are kept as their index. */
struct draft {
    struct config config;
    struct config_listener each; /* limits, times and socket options of every listener */
    struct target_options *to;   /* of every TARGET; owned; NULL without any */
    struct options_tls tls;      /* files and names of TLS, of both sides */
    int send_proxy;              /* enum target_proxy - 1; -1 when not given */
    uint32_t workers;            /* 0: auto */
    int mode;                    /* enum relay_choice */
    int log_level;               /* enum log_level */
    int log_format;              /* enum log_format, -1 when not given */
};

/* Puts all options of listeners, or all others, as `d` has them, to what `config` owns. NULL when
 * out of memory. */
struct config_settings *options_note(struct config *config, const struct draft *d,
                                     bool of_listener);

enum { OPTIONS_MAX = 128 };

/* A command line that has been read. */
struct options {
    struct draft draft;
    enum options_command command;
    bool given[OPTIONS_MAX]; /* by index in the table: the command line has it */
    bool operands;           /* it has LISTEN TARGET */
    bool of_policy;          /* COMMAND_CHECK of a policy file */
};

/* "error, warn, info or debug". Returns `buf`. */
const char *options_join_words(const char *const *words, char *buf, size_t cap);

/* Reads `value` into the draft; messages begin with `label`. 0 or a negative error. */
int options_store(struct draft *d, const struct option_spec *spec, const char *label,
                  const char *value, char *why, size_t why_cap);

/* Makes the listeners of d->config from the pairs LISTEN TARGET. 0, or a negative error with a
 * message in `why`. */
int options_add_listeners(struct draft *d, char *const *operands, size_t n, char *why,
                          size_t why_cap);

/* Makes those of one ps.listen{}. */
int options_add_script_listener(struct draft *d, const struct script_listener *l, char *why,
                                size_t why_cap);

/* Refuses an address that is listened to twice. */
int options_check_twins(const struct config *c, char *why, size_t why_cap);

#endif
