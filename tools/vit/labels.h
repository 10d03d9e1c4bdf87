// labels: the names of a classifier's classes: config.json's id2label, or the numbers of num_labels classes.
//
// Owns the list of names. Refuses a table without a name for each number from 0 up. Called by vit_model and
// convnet_model.
#pragma once
#include "settings.h"

// How many there are; *labels becomes the list, to be freed with labels_free, also after a failure of s.
int labels_read(char ***labels, Settings *s);
void labels_free(char **labels, int n); // accepts NULL
