/* What a process and its successor tell each other, over a socketpair of whole messages.
 *
 * A message is a word, and after a blank what belongs to it. A word that a reader does not know is
 * passed over, so that versions may differ. Knows neither of them. */
#ifndef PENSTOCK_CORE_PROXY_HANDOVER_WIRE_H
#define PENSTOCK_CORE_PROXY_HANDOVER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* From the old one, in this order:
 *   begin 1                                    the form of what follows
 *   socket ROLE INDEX DEV INO BIND  (+ a descriptor)
 *                                              ROLE l: a listener, a: the admin; the sockets of one
 *                                              listener share INDEX, and follow each other
 *   tickets BYTES                              tls_tickets_write()
 *   end                                        that was all
 *   go                                         after "bound": accept
 *   main                                       after "ready": the service manager knows you
 * From the new one:
 *   exec ERRNO-AS-BYTES                        the program could not be started
 *   failed TEXT                                it gives up
 *   adopted INDEX
 *   bound                                      everything is open; nothing is accepted yet
 *   ready                                      it accepts on every listener */
enum {
    HANDOVER_FORM = 1,
    HANDOVER_MESSAGE_MAX = 8192 + 64,
    HANDOVER_BIND_MAX = 1024 /* bytes of an address as it was written */
};
#define HANDOVER_VARIABLE "PENSTOCK_HANDOVER"

enum handover_role { HANDOVER_LISTENER = 'l', HANDOVER_ADMIN = 'a' };

struct handover_socket {
    enum handover_role role;
    size_t index;
    uint64_t dev, ino; /* of a UNIX socket's file; 0 without one */
    char bind[HANDOVER_BIND_MAX];
};

struct handover_message {
    char bytes[HANDOVER_MESSAGE_MAX + 1]; /* a zero behind them */
    size_t n;
    int fd; /* that came with it, the reader's; -1: none */
};

/* Sends `n` bytes and, unless it is -1, a copy of `fd`. 0 or a negative errno. */
int handover_send(int channel, const void *bytes, size_t n, int fd);
int handover_send_word(int channel, const char *word);
/* "WORD TEXT", cut where it is too long. */
int handover_send_text(int channel, const char *word, const char *text);
int handover_send_socket(int channel, const struct handover_socket *s, int fd);

/* Takes one message. 1, 0 at the other's end, or a negative errno. */
int handover_receive(int channel, struct handover_message *m);
/* What is behind the word, with its length; NULL when it is another word. */
const char *handover_is(const struct handover_message *m, const char *word, size_t *n);
/* Reads what is behind "socket". */
bool handover_read_socket(const char *text, struct handover_socket *out);

#endif
