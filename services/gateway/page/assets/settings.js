// What the gateway tells its page, see page/settings.py.

export const settings = JSON.parse(document.body.dataset.settings);
