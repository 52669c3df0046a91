/* The queue of a file that captures go to; the rest of it is in capture.h. Private to core/net. */
#ifndef PENSTOCK_NET_CAPTURE_FILE_H
#define PENSTOCK_NET_CAPTURE_FILE_H

#include "penstock/net/capture.h"

struct capture_file *capture_file_hold(struct capture_file *f);
/* Room for a block of n bytes at the end of the queue; NULL when that is full: the block is missing
 * then, and counted. Whoever gets room fills it at once and calls capture_file_commit(): no other
 * thread captures meanwhile. */
uint8_t *capture_file_reserve(struct capture_file *f, size_t n);
void capture_file_commit(struct capture_file *f, size_t n);

#endif
