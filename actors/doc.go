// Package actors makes protoactor-go safe to supervise and transparent across processes.
package actors
