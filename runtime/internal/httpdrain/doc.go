// Package httpdrain ends an *http.Server for a process that is about to be replaced: clients with
// idle connections lose no request.
package httpdrain
