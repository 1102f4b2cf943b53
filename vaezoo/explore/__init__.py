"""The latent explorer: an export as a page that runs in a browser. Sources of the page are in `web/`."""
