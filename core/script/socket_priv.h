/* Sockets that scripts open (lib_socket.c). */
#ifndef PENSTOCK_SCRIPT_SOCKET_PRIV_H
#define PENSTOCK_SCRIPT_SOCKET_PRIV_H

#include "script_priv.h"

struct script_socket;

/* Adds the primitives of ps.tcp and ps.dns to the table on the top. May raise. */
void lib_socket_open(lua_State *L, struct vm *vm);
/* The script has put bytes there that are not yet written. */
void lib_socket_soil(struct script_socket *s);
/* Writes what scripts have put into sockets. */
void lib_socket_flush(struct vm *vm);
/* The userdata is collected: closes the socket once what was written has gone. */
void lib_socket_collected(struct script_socket *s);
/* A connection is over: closes each of its sockets, in `list`, once what was written has gone. */
void lib_socket_leave_all(struct list *list);
/* Closes every socket in `list` at once: by RST where something written is lost by that. */
void lib_socket_close_all(struct list *list);

#endif
