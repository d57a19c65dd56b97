// Package address knows what networks and addresses mean, by the rules of package net.
package address
