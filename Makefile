# What there is to do here; `make help` lists it. Everything is built static and without a registry.

PREFIX ?= /usr/local
BINDIR = $(DESTDIR)$(PREFIX)/bin
MANDIR = $(DESTDIR)$(PREFIX)/share/man
SHAREDIR = $(DESTDIR)$(PREFIX)/share/bottle
DOCDIR = $(DESTDIR)$(PREFIX)/share/doc/bottle

CARGO ?= cargo
RELEASE = target/$(shell rustc -vV | sed -n 's/^host: //p')/release
TOOLS = $(notdir $(wildcard tools/bottle-*))

.PHONY: all debug help images debian mcp engines demo test unit integration twin bench lint fmt install uninstall clean

# Always the same packages, so that cargo resolves the same features and builds each crate once.
all: ## build the tools and the sidecars
	$(CARGO) build --release --workspace --bins

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

images: ## make the sidecars' images
	scripts/images

debian: mcp ## make the image of Debian that the trust matrix runs in
	xargs scripts/debian <tests/fixtures/trust/packages

# For that Debian's Python, whatever the host's is.
mcp: target/mcp/.whole ## fetch the official MCP client, for the test of supervise

target/mcp/.whole: tests/fixtures/mcp/requirements.txt
	rm -rf target/mcp
	python3 -m pip install --quiet --target target/mcp --python-version 3.11 --only-binary=:all: --requirement $<
	touch $@

# Of the same Debian, so that a bare machine makes one root file system and not two.
engines: images ## make mitmproxy's image
	scripts/images --no-build --mitmproxy --base="$$(xargs scripts/debian <tests/fixtures/trust/packages)"

# The sidecars too: the tests of the root package look for them beside the tools.
debug:
	$(CARGO) build --workspace --bins

demo: all ## run the main job: a bottle, the probe in it, nothing left
	scripts/demo

# What cannot be made here is skipped aloud by its tests.
test: unit ## run all tests
	-$(MAKE) debian engines
	$(MAKE) integration twin

unit: debug ## run the tests that need no engine
	$(CARGO) test --workspace --lib --bins --test unit --test serve

integration: debug images ## run the tests that need an engine; they skip aloud without one
	$(CARGO) test --workspace --test integration -- --test-threads=2

twin: debug ## run the table of requests on both engines, and on mitmproxy what else holds there
	tests/twin

bench: all images ## measure, into target/bench/
	tests/bench/run

lint: ## check format, lints, scripts, pages and dependencies
	scripts/check

fmt: ## format the sources
	$(CARGO) fmt --all

install: ## install below $(DESTDIR)$(PREFIX)
	install -d $(BINDIR) $(MANDIR)/man1 $(MANDIR)/man5 $(DOCDIR)
	install -m 755 $(addprefix $(RELEASE)/,$(TOOLS)) $(BINDIR)
	install -m 755 scripts/bottle $(BINDIR)/bottle
	install -m 755 scripts/images $(BINDIR)/bottle-images
	install -m 755 scripts/debian $(BINDIR)/bottle-debian
	install -d $(SHAREDIR)
	install -m 644 tools/bottle-egress/mitmproxy/bottle.py $(SHAREDIR)/mitmproxy.py
	install -D -m 644 -t $(SHAREDIR)/git-gate tools/bottle-git-gate/image/Dockerfile tools/bottle-git-gate/image/packages
	install -m 644 $(wildcard man/*.1) $(MANDIR)/man1
	install -m 644 $(wildcard man/*.5) $(MANDIR)/man5
	install -m 644 README.md LICENSE-MIT LICENSE-APACHE man/decisions.schema.json $(DOCDIR)
	cp -R man/examples $(DOCDIR)

uninstall: ## remove what install installed
	rm -f $(addprefix $(BINDIR)/,$(TOOLS) bottle bottle-images bottle-debian) $(SHAREDIR)/mitmproxy.py
	rm -rf $(SHAREDIR)/git-gate
	rm -f $(addprefix $(MANDIR)/man1/,$(notdir $(wildcard man/*.1))) $(addprefix $(MANDIR)/man5/,$(notdir $(wildcard man/*.5)))
	rm -rf $(DOCDIR)

clean: ## remove what was built here
	$(CARGO) clean
