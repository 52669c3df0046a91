/* What listener.c and acceptor.c share and nobody else needs. */
#ifndef PENSTOCK_PROXY_LISTENER_PRIV_H
#define PENSTOCK_PROXY_LISTENER_PRIV_H

struct config_socket;

/* Sets a socket's options. Accepted TCP sockets inherit all of a listening one's, which saves calls
 * for each connection; UNIX ones inherit nothing. */
void listener_set_options(int fd, const struct config_socket *o, int family);
/* Listens with the backlog of `o`, also once more. 0 or a negative errno. */
int listener_listen(int fd, const struct config_socket *o);

#endif
