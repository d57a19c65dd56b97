// Package address parses and resolves networks and addresses, by the rules of package net.
package address
