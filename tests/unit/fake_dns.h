/* A name server inside the test: a UDP socket on the test's own loop that gives every question the
 * same answer. */
#ifndef PENSTOCK_TESTS_FAKE_DNS_H
#define PENSTOCK_TESTS_FAKE_DNS_H

#include "support.h"

#include <stdio.h>

enum fake_dns_mode { FAKE_ANSWER = 0, FAKE_SERVFAIL = 2, FAKE_NXDOMAIN = 3, FAKE_SILENT };

struct fake_dns {
    struct poller_entry entry;
    enum fake_dns_mode mode;
    const char *v4[4],
        *v6[4]; /* FAKE_ANSWER: addresses as text; none of a family means that there is none */
    uint32_t ttl_s;
    bool silent_v6; /* no answer to questions for IPv6 */
    unsigned n_questions;
    char where[32]; /* "127.0.0.1:port", for resolver_new() */
};

static inline size_t put_answers(unsigned char *at, const char *const addrs[4], unsigned char type,
                                 uint32_t ttl_s)
{
    size_t len = 0;
    for (size_t i = 0; i < 4 && addrs[i]; i++) {
        struct addr a;
        bool v4 = type == 1;
        unsigned char head[12] = {0xc0, 12, 0, type, 0, 1, 0, 0, 0, 0, 0, v4 ? 4 : 16};
        uint32_t ttl = htonl(ttl_s);
        assert_int_equal(addr_parse_ip(addrs[i], &a), 0);
        memcpy(head + 6, &ttl, 4);
        memcpy(at + len, head, sizeof head);
        len += sizeof head;
        memcpy(at + len, v4 ? (void *)&a.in.sin_addr : (void *)&a.in6.sin6_addr, v4 ? 4 : 16);
        len += v4 ? 4 : 16;
    }
    return len;
}

static inline void on_question(struct poller_entry *entry, unsigned events)
{
    struct fake_dns *dns = container_of(entry, struct fake_dns, entry);
    unsigned char m[1024];
    struct addr from = {0};
    socklen_t from_len = sizeof from;
    (void)events;
    ssize_t n = recvfrom(entry->fd, m, 512, 0, &from.sa, &from_len);
    if (n < 17)
        return;
    dns->n_questions++;
    if (dns->mode == FAKE_SILENT)
        return;
    size_t len = 12;
    while (m[len])
        len += (size_t)m[len] + 1;
    unsigned char type = m[len + 2];
    len += 5;
    if (dns->silent_v6 && type != 1)
        return;
    size_t body = 0;
    if (dns->mode == FAKE_ANSWER)
        body = put_answers(m + len, type == 1 ? dns->v4 : dns->v6, type, dns->ttl_s);
    m[2] |= 0x80;
    m[3] = (unsigned char)(0x80 | dns->mode);
    memset(m + 6, 0, 6);
    m[7] = (unsigned char)(body / (type == 1 ? 16 : 28));
    assert_int_equal(sendto(entry->fd, m, len + body, 0, &from.sa, from_len), len + body);
}

static inline int fake_dns_start(struct fake_dns *dns, struct fixture *f, enum fake_dns_mode mode)
{
    struct addr a;
    *dns = (struct fake_dns){.mode = mode, .ttl_s = 60, .entry.on_event = on_question};
    dns->entry.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    addr_parse_ip("127.0.0.1", &a);
    if (dns->entry.fd < 0 || bind(dns->entry.fd, &a.sa, addr_len(&a)))
        return -1;
    a = local_addr(dns->entry.fd);
    addr_format(&a, dns->where, sizeof dns->where);
    return poller_add_level(&f->loop.poller, &dns->entry, POLLER_IN);
}

#endif
