// Package childproto is what the master and a child say to each other over the channel
// between them: the kinds of frames, their payloads, and the bounds of these.
package childproto
