/** Closes the open filter of a list on Escape, and on a click anywhere else. */
'use strict';
{
    const openFilter = () => document.querySelector('#changelist-filter .filter[open]');

    document.addEventListener('keydown', event => {
        const filter = openFilter();
        if (event.key === 'Escape' && filter) {
            filter.open = false;
            filter.querySelector('summary').focus();
        }
    });

    document.addEventListener('click', event => {
        const filter = openFilter();
        if (filter && !filter.contains(event.target)) {
            filter.open = false;
        }
    });
}
