# Egret: which program is sending how much to where, is that more than policy
# allows, and who must know now? `make help` lists what there is.

SHELL := /bin/bash
EGRET := target/release/egret

.DEFAULT_GOAL := help
.PHONY: help run build test lint demo accuracy torture bench fuzz install clean

help: ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

run: build ## Build, then watch this machine (root), or replay the example capture
	@if [ "$$(id -u)" = 0 ]; then \
		echo "egret: watching this machine with the rules that ship; Ctrl-C ends it"; \
		exec $(EGRET) run; \
	else \
		echo "egret: capturing needs root (sudo make run); replaying examples/upload.pcapng"; \
		exec $(EGRET) replay examples/upload.pcapng; \
	fi

build: ## Build the release binary
	@tests/setup build
	cargo build --release

test: ## Run the whole test suite
	@tests/setup test
	cargo test --all-features

lint: ## Format, lints, documentation and dependencies, as CI checks them
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

demo: build ## Two namespaces, an upload with curl, and its alert within seconds (root)
	@tests/setup test
	@examples/demo.sh $(EGRET)

accuracy: build ## The grid of 24 scenarios and the kernel source's own, in full (root, 15 minutes)
	@tests/setup accuracy
	EGRET_ACCURACY=1 EGRET_SHORT_PROCESSES=20000 cargo test --release --test egret live_kernel -- --nocapture
	cargo test --release --test egret accuracy -- --ignored --nocapture

torture: ## Kill the delivery of alerts a thousand times; nothing committed may be lost
	@tests/setup build
	EGRET_TORTURE=1000 cargo test --release --test egret torture:: -- --nocapture

bench: ## Measure packets per second and the cost of rules
	@tests/setup test
	cargo bench

install: build ## Install the binary, the rules, a configuration and the systemd unit under /
	install -Dm755 $(EGRET) $(DESTDIR)/usr/local/bin/egret
	install -d $(DESTDIR)/etc/egret/rules
	install -m644 rules/*.yaml $(DESTDIR)/etc/egret/rules/
	test -e $(DESTDIR)/etc/egret/egret.yaml || install -m600 examples/egret.yaml $(DESTDIR)/etc/egret/egret.yaml
	install -Dm644 examples/egret.service $(DESTDIR)/etc/systemd/system/egret.service

fuzz: ## Fuzz every reader of foreign input for a minute each
	tests/fuzz/run 60

clean: ## Remove what was built
	cargo clean
