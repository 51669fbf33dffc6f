# Agent Drive. `make up` gives a working three-node cluster with mounts;
# `make down` takes it away again.

SHELL    := /bin/bash
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 60s
DATA     ?= ./data
MNT      ?= ./mnt

.PHONY: all build up down check test fuzz generate clean help

all: build

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## one static binary, bin/agentdrive
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/agentdrive ./cmd/agentdrive

up: ## start the demo cluster in $(DATA), mount it below $(MNT)
	@scripts/install fusermount3
	@$(MAKE) --no-print-directory build
	@DATA="$(DATA)" MNT="$(MNT)" scripts/up

down: ## stop the demo cluster and remove it (KEEP=1 keeps $(DATA))
	@DATA="$(DATA)" MNT="$(MNT)" scripts/down

check: ## formatting, vet, staticcheck, modules, generated files, architecture
	@scripts/check

test: build ## all tests with the race detector, and a summary
	@scripts/test

fuzz: ## every fuzz function for FUZZTIME each
	@FUZZTIME="$(FUZZTIME)" scripts/fuzz

generate: ## docs/CLI.md from the table of verbs
	$(GO) generate ./...

clean: ## remove what was built
	rm -rf bin
