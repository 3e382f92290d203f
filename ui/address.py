"""The address of a page, in which its state lives: a button that copies it, and a history with one entry for each page.

Streamlit adds an entry to the browser's history for each change of the address that a script makes, also for those of
the moment at which another page is opened: "back" would lead to a page that has lost its filters.
"""

from __future__ import annotations

import streamlit as st

_JS = """
const keepEntries = () => {
    if (history.eftEntries) return
    history.eftEntries = true
    const push = history.pushState.bind(history)
    let touched = location.href  // the address when the user last did something
    const touch = () => { touched = location.href }
    for (const name of ['pointerdown', 'keydown']) addEventListener(name, touch, true)
    history.pushState = (state, title, url) => {
        const other = new URL(url, location.href).pathname !== location.pathname
        if (!other) return history.replaceState(state, title, url)
        if (new URL(touched).pathname === location.pathname) history.replaceState(history.state, '', touched)
        push(state, title, url)
    }
}
const copy = async text => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text)
    const area = document.createElement('textarea')  // over plain HTTP from another machine
    area.value = text
    document.body.append(area)
    area.select()
    document.execCommand('copy')
    area.remove()
}
export default ({ parentElement }) => {
    keepEntries()
    const button = parentElement.querySelector('button')
    button.onclick = async () => {
        await copy(location.href)
        button.textContent = 'Copied'
        setTimeout(() => { button.textContent = 'Copy link' }, 2000)
    }
}
"""

_CSS = """
button {
    font: inherit; font-size: 0.875rem; white-space: nowrap;
    color: var(--st-text-color); background: var(--st-background-color);
    border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius); cursor: pointer;
    min-height: 2.5rem; padding: 0.25rem 0.75rem;
}
button:hover, button:focus-visible { border-color: var(--st-primary-color); color: var(--st-primary-color); }
"""

_COMPONENT = st.components.v2.component("address", html="<button type='button'>Copy link</button>", css=_CSS, js=_JS)


def copy_button() -> None:
    """A button that copies the address of the page, with all its filters; every page has it once."""
    _COMPONENT(key="address", width="content")
