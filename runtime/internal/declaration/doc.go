// Package declaration is what a program declares of its tree, as text that processes compare: a
// master, the workers that run the same program, and those of a release that a reload brings.
//
// A declaration is a list of lines "path field value". A child of the tree has a line with the
// field [Is] and its kind for the value, and a line for each field of its spec that is not zero.
// Functions are left out, because they cannot be compared.
package declaration
