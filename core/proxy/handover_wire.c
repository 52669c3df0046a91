/* Messages of a handover: sendmsg(2), recvmsg(2) and their text. */
#include "handover_wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for one descriptor, aligned as the kernel wants it. */
union one_fd {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

int handover_send(int channel, const void *bytes, size_t n, int fd)
{
    union one_fd control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&m);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    return sendmsg(channel, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int handover_send_word(int channel, const char *word)
{
    return handover_send(channel, word, strlen(word), -1);
}

int handover_send_text(int channel, const char *word, const char *text)
{
    char message[HANDOVER_MESSAGE_MAX];
    snprintf(message, sizeof message, "%s %s", word, text);
    return handover_send_word(channel, message);
}

int handover_send_socket(int channel, const struct handover_socket *s, int fd)
{
    char message[HANDOVER_BIND_MAX + 128];
    int n = snprintf(message, sizeof message, "socket %c %zu %" PRIu64 " %" PRIu64 " %s",
                     (char)s->role, s->index, s->dev, s->ino, s->bind);
    return handover_send(channel, message, (size_t)n, fd);
}

static int take_fd(struct msghdr *m)
{
    int fd = -1;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(m); head; head = CMSG_NXTHDR(m, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

int handover_receive(int channel, struct handover_message *m)
{
    union one_fd control;
    struct iovec part = {.iov_base = m->bytes, .iov_len = HANDOVER_MESSAGE_MAX};
    struct msghdr head = {.msg_iov = &part,
                          .msg_iovlen = 1,
                          .msg_control = &control,
                          .msg_controllen = sizeof control};
    ssize_t n;
    do /* ECONNRESET, told once: the other has ended with messages unread; what it has said follows
        */
        n = recvmsg(channel, &head, MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    m->n = n > 0 ? (size_t)n : 0;
    m->bytes[m->n] = '\0';
    m->fd = n > 0 ? take_fd(&head) : -1;
    return n < 0 ? -errno : n > 0;
}

const char *handover_is(const struct handover_message *m, const char *word, size_t *n)
{
    size_t len = strlen(word);
    if (m->n < len || memcmp(m->bytes, word, len) != 0 || (m->n > len && m->bytes[len] != ' '))
        return NULL;
    size_t skip = m->n > len ? len + 1 : len;
    *n = m->n - skip;
    return m->bytes + skip;
}

bool handover_read_socket(const char *text, struct handover_socket *out)
{
    char role;
    int at = 0;
    if (sscanf(text, "%c %zu %" SCNu64 " %" SCNu64 " %n", &role, &out->index, &out->dev, &out->ino,
               &at) != 4 ||
        !at || strlen(text + at) >= sizeof out->bind)
        return false;
    out->role = (enum handover_role)role;
    memcpy(out->bind, text + at, strlen(text + at) + 1);
    return true;
}
