/* What the program says about itself. */
#ifndef PENSTOCK_CLI_HELP_H
#define PENSTOCK_CLI_HELP_H

#include <stdio.h>

/* The lines of text that fit on any terminal. */
enum { HELP_COLUMNS = 100 };

/* Usage with two examples: for somebody who typed nothing. */
void help_print_short(FILE *out);
/* All of --help. */
void help_print(FILE *out);
/* What prints the help that this first word asks for: that of a command, or help_print. */
void (*help_for(const char *word))(FILE *out);
/* --version: penstock, how it was built, and the libraries it runs with. */
void help_print_version(FILE *out);

#endif
