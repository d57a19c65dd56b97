package coppice
