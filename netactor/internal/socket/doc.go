// Package socket opens the sockets that the master holds, with their options and paths.
package socket
