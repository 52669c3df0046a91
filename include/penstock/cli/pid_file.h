/* The file that tells others which process serves. */
#ifndef PENSTOCK_CLI_PID_FILE_H
#define PENSTOCK_CLI_PID_FILE_H

#include <stddef.h>

/* Writes this process's id and a newline to `path`, over what was there; symbolic links are not
 * followed. Returns 0, or a negative errno with a message in `why`. */
int pid_file_write(const char *path, char *why, size_t why_cap);

/* Would that work? Makes an empty file where there is none. */
int pid_file_check(const char *path, char *why, size_t why_cap);

/* Removes the file when it still holds this process's id: a successor may have written its own. */
void pid_file_remove(const char *path);

#endif
