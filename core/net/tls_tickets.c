/* Keys of session tickets. New ones every PERIOD_MS; a ticket under the last but one is taken and
 * renewed, one under an older key is not. Keys never leave the memory of the process, but for that
 * of its successor. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "penstock/base/clock.h"
#include "tls_priv.h"

enum { PERIOD_MS = 2 * 3600 * 1000, NAME_BYTES = 16, KEY_BYTES = 32, IV_BYTES = 16 };

struct key {
    unsigned char name[NAME_BYTES];
    unsigned char cipher[KEY_BYTES];
    unsigned char mac[KEY_BYTES];
};

struct tls_tickets {
    pthread_mutex_t lock; /* for keys and renewed_ms */
    struct key keys[2];   /* the present ones, and those before */
    uint64_t renewed_ms;
    EVP_CIPHER *cipher; /* fetched once: each fetch takes a lock of OpenSSL's */
};

static uint64_t now_ms(void)
{
    return clock_now_ns() / 1000000;
}

struct tls_tickets *tls_tickets_new(void)
{
    struct tls_tickets *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (!t->cipher || RAND_priv_bytes((unsigned char *)t->keys, sizeof t->keys) != 1) {
        EVP_CIPHER_free(t->cipher);
        free(t);
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    t->renewed_ms = now_ms();
    return t;
}

void tls_tickets_free(struct tls_tickets *t)
{
    if (!t)
        return;
    OPENSSL_cleanse(t->keys, sizeof t->keys);
    EVP_CIPHER_free(t->cipher);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* The process may have slept through several periods. */
static void renew(struct tls_tickets *t)
{
    uint64_t now = now_ms();
    struct key fresh[2];
    if (now - t->renewed_ms < PERIOD_MS)
        return;
    bool long_ago = now - t->renewed_ms >= 2 * (uint64_t)PERIOD_MS;
    if (RAND_priv_bytes((unsigned char *)fresh, sizeof fresh) != 1)
        return; /* the old ones stay, until there is entropy again */
    t->keys[1] = long_ago ? fresh[1] : t->keys[0];
    t->keys[0] = fresh[0];
    t->renewed_ms = now;
    OPENSSL_cleanse(fresh, sizeof fresh);
}

_Static_assert(TLS_TICKETS_BYTES == sizeof(uint64_t) + 2 * sizeof(struct key), "see its reader");

void tls_tickets_write(struct tls_tickets *t, unsigned char *out)
{
    pthread_mutex_lock(&t->lock);
    renew(t);
    uint64_t age_ms = now_ms() - t->renewed_ms;
    memcpy(out, &age_ms, sizeof age_ms);
    memcpy(out + sizeof age_ms, t->keys, sizeof t->keys);
    pthread_mutex_unlock(&t->lock);
}

void tls_tickets_read(struct tls_tickets *t, const unsigned char *bytes, size_t n)
{
    uint64_t age_ms, now = now_ms();
    if (n != TLS_TICKETS_BYTES)
        return;
    memcpy(&age_ms, bytes, sizeof age_ms);
    if (age_ms >= PERIOD_MS || age_ms > now)
        return;
    pthread_mutex_lock(&t->lock);
    memcpy(t->keys, bytes + sizeof age_ms, sizeof t->keys);
    t->renewed_ms = now - age_ms;
    pthread_mutex_unlock(&t->lock);
}

/* The key for a new ticket, or that of this name: its age in periods, -1 when it is unknown. */
static int take_key(struct tls_tickets *t, const unsigned char *name, struct key *out)
{
    int age = -1;
    pthread_mutex_lock(&t->lock);
    renew(t);
    if (!name)
        age = 0;
    for (int i = 0; name && i < 2; i++)
        if (memcmp(t->keys[i].name, name, NAME_BYTES) == 0)
            age = i;
    if (age >= 0)
        *out = t->keys[age];
    pthread_mutex_unlock(&t->lock);
    return age;
}

static bool init_mac(EVP_MAC_CTX *mac, struct key *key)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->mac, KEY_BYTES),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_END};
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 good, 2 good and wants a new ticket, 0 no ticket. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int encrypt)
{
    struct tls_tickets *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct key key;
    int age = take_key(t, encrypt ? NULL : name, &key);
    if (age < 0)
        return 0;
    bool good = init_mac(mac, &key);
    if (encrypt && good) {
        memcpy(name, key.name, NAME_BYTES);
        good = RAND_bytes(iv, IV_BYTES) == 1 &&
               EVP_EncryptInit_ex2(cipher, t->cipher, key.cipher, iv, NULL) == 1;
    } else if (good) {
        good = EVP_DecryptInit_ex2(cipher, t->cipher, key.cipher, iv, NULL) == 1;
    }
    OPENSSL_cleanse(&key, sizeof key);
    if (!good)
        return -1;
    /* TLS 1.3: a client takes a ticket once (RFC 8446 appendix C.4), so it needs another one. */
    return !encrypt && (age > 0 || SSL_version(ssl) == TLS1_3_VERSION) ? 2 : 1;
}

void tls_tickets_use(struct tls_tickets *t, SSL_CTX *ctx)
{
    SSL_CTX_set_app_data(ctx, t);
    SSL_CTX_set_timeout(ctx, PERIOD_MS / 1000);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
}
